// The daq runtime in a page: `const daq = await load("daq.wasm"); const model = daq.open(bytes)`.

export async function load(url) {
  const bytes = await (await fetch(url)).arrayBuffer();
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const wasm = instance.exports;
  const text = () =>
    new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, wasm.daq_text(), wasm.daq_text_len()));
  const floats = (at, length) => new Float32Array(wasm.memory.buffer, at, length);

  // A model of the bytes of a .daq file; throws what is wrong with them.
  function open(bytes) {
    const file = wasm.daq_alloc(bytes.length);
    new Uint8Array(wasm.memory.buffer, file, bytes.length).set(bytes);
    const model = wasm.daq_open(file, bytes.length);
    if (!model) throw new Error(text());
    const about = Object.fromEntries(
      text().trim().split("\n").map((line) => [line.split(" ", 1)[0], line.slice(line.indexOf(" ") + 1).replaceAll("\x1e", "\n")]));
    const shape = about.shape.split(" ").map(Number);
    const length = shape.reduce((a, b) => a * b, 1);
    return {
      about,
      shape,
      // Takes and gives a Float32Array.
      run(input) {
        floats(wasm.daq_input(model), length).set(input);
        if (wasm.daq_run(model)) throw new Error(text());
        return floats(wasm.daq_output(model), Number(about.outputs)).slice();
      },
      close: () => wasm.daq_close(model),
    };
  }
  return { open };
}

// The input of a picture (an image, canvas or video), prepared as the model's metadata say.
export function prepare(picture, model) {
  const [height, width, last] = sides(model);
  const p = JSON.parse(model.about["daq.preprocess"] ?? "{}");
  const from = [picture.videoWidth ?? picture.naturalWidth ?? picture.width,
    picture.videoHeight ?? picture.naturalHeight ?? picture.height];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const fill = p.pad_value ?? 0;
  context.fillStyle = `rgb(${fill} ${fill} ${fill})`;
  context.fillRect(0, 0, width, height);
  const [how, share] = (p.resize ?? "stretch").split(":");
  if (how === "crop") {
    const side = Math.min(from[0] / width, from[1] / height) * Number(share ?? 1);
    const [w, h] = [side * width, side * height];
    context.drawImage(picture, (from[0] - w) / 2, (from[1] - h) / 2, w, h, 0, 0, width, height);
  } else if (how === "pad") {
    const scale = Math.min(width / from[0], height / from[1]);
    const [w, h] = [from[0] * scale, from[1] * scale];
    const [x, y] = share === "center" ? [(width - w) / 2, (height - h) / 2] : [0, 0];
    context.drawImage(picture, x, y, w, h);
  } else {
    context.drawImage(picture, 0, 0, width, height);
  }
  const { data } = context.getImageData(0, 0, width, height);
  const channels = last ? model.shape[3] : model.shape[1];
  const each = (value, c) => (Array.isArray(value) ? value[c % value.length] : value);
  const mean = p.mean ?? [123.675, 116.28, 103.53];
  const std = p.std ?? [58.395, 57.12, 57.375];
  const input = new Float32Array(width * height * channels);
  for (let at = 0; at < width * height; at++) {
    const [r, g, b] = [data[at * 4], data[at * 4 + 1], data[at * 4 + 2]];
    const pixel = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : p.color === "bgr" ? [b, g, r] : [r, g, b];
    for (let c = 0; c < channels; c++) {
      const to = last ? at * channels + c : c * width * height + at;
      input[to] = (pixel[c] - each(mean, c)) / each(std, c);
    }
  }
  return input;
}

function sides(model) {
  const last = model.about.layout === "nhwc";
  if (model.shape.length !== 4) throw new Error(`the model's input of shape ${model.shape} is no picture`);
  return last ? [model.shape[1], model.shape[2], true] : [model.shape[2], model.shape[3], false];
}

// The classes of the largest outputs, with softmax where the outputs are no probabilities yet.
export function best(output, count) {
  const sum = output.reduce((a, b) => a + b, 0);
  const most = Math.max(...output);
  const probable = output.every((x) => x >= 0) && Math.abs(sum - 1) < 0.05;
  const exp = output.map((x) => Math.exp(x - most));
  const all = exp.reduce((a, b) => a + b, 0);
  return [...output.keys()].sort((a, b) => output[b] - output[a]).slice(0, count)
    .map((index) => ({ index, share: probable ? output[index] : exp[index] / all }));
}
