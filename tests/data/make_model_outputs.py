"""Writes what onnxruntime computes for whole models, sampled, to one small JSON file.

    pip install numpy onnx onnxruntime
    python tests/data/make_model_outputs.py DIRECTORY...

DIRECTORY holds .onnx models. The models themselves are not part of the repository; the inputs
are a formula that crates/daq-quant/tests/all/models.rs computes again, element for element:

    h = (i + 1) * 2654435761 mod 2^32;  h ^= h >> 15;  h = h * 2246822519 mod 2^32;  h ^= h >> 13
    x[i] = low + (high - low) * f32(h >> 8) / f32(2^24)

everything after the hash in f32, in that order. i counts squares of `block` pixels in row-major order of
[batch, channels, rows / block, columns / block], both rounded up; all pixels of a square are alike. With
`stripes`, rows y of (y / stripes) mod 3 != 1 are `high`: the squares form lines like those of text.
Of each output come shape, mean, the largest magnitude, and elements at positions hash(j) mod length.
Graph optimisation is off.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

OUT = pathlib.Path(__file__).parents[2] / "crates/daq-quant/tests/data/model_outputs.json"
SAMPLES = 200
# Inputs in the range that each model was trained for; -2..2 otherwise.
RANGES = {
    "face_detection_short_range": (-1, 1), "pretrainedResnet": (0, 255), "squeezenet1.0-dc": (-120, 135), "selfie_segmentation": (0, 1),
    "efficientnet-lite0": (-1, 1), "mobilenet_v1_0.25_128-float-from-qat": (-1, 1), "ppocr_cls_static_48x192": (-1, 1),
    "ultraface-version-RFB-320_without_postprocessing": (-1, 1), "pretrainedResnet_quant-qdq": (0, 255), "efficientnet-lite0-qop-u8s8-pc": (-1, 1),
    "mobilenet_v1_0.25_128-qdq-from-qat": (-1, 1), "mobilenet_v1_0.5_160-qdq-from-qat": (-1, 1),
}
# Where noise would leave every output at 0: block and stripes.
SHAPES = {"selfie_segmentation": (16, 0), "ppocrv4_det_static_640": (4, 16)}


def hashes(count):
    h = (np.arange(1, count + 1, dtype=np.uint64) * 2654435761 & 0xFFFFFFFF).astype(np.uint32)
    h ^= h >> np.uint32(15)
    h = (h.astype(np.uint64) * 2246822519 & 0xFFFFFFFF).astype(np.uint32)
    return h ^ (h >> np.uint32(13))


def recipe(shape, low, high, block, stripes):
    n, c, h, w = shape
    squares = (n, c, -(-h // block), -(-w // block))
    unit = (hashes(int(np.prod(squares))) >> np.uint32(8)).astype(np.float32) / np.float32(2**24)
    x = (np.float32(low) + np.float32(high - low) * unit).reshape(squares)
    x = np.ascontiguousarray(x.repeat(block, 2).repeat(block, 3)[:, :, :h, :w])
    if stripes:
        x[:, :, np.arange(h) // stripes % 3 != 1] = high
    return x


def outputs_of(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    low, high = RANGES.get(path.stem, (-2, 2))
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in session.get_inputs()}
    block, stripes = SHAPES.get(path.stem, (1, 0))
    results = session.run(None, {name: recipe(shape, low, high, block, stripes) for name, shape in shapes.items()})
    outputs = []
    for info, values in zip(session.get_outputs(), results):
        flat = values.reshape(-1)
        at = hashes(min(SAMPLES, flat.size)) % np.uint32(flat.size)
        outputs.append({
            "name": info.name, "shape": list(values.shape), "mean": float(flat.mean(dtype=np.float64)), "largest": float(np.abs(flat).max()),
            "elements": [float(f"{v:.9g}") for v in flat[at]],
        })
    form = {"low": low, "high": high, "block": block, "stripes": stripes}
    inputs = [{"name": name, "shape": shape} | form for name, shape in shapes.items()]
    # Quantized models round: where floats differ in the last bit, codes differ by a step.
    nodes = onnx.load(path, load_external_data=False).graph.node
    quantized = any(n.op_type.startswith(("QuantizeLinear", "QLinear")) for n in nodes)
    return {"quantized": quantized, "inputs": inputs, "outputs": outputs}


def main():
    paths = [p for d in sys.argv[1:] for p in sorted(pathlib.Path(d).glob("*.onnx"))]
    if not paths:
        sys.exit(__doc__)
    models = {p.name: outputs_of(p) for p in paths}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(model)}" for name, model in models.items())
    OUT.write_text(f"{{\n{lines}\n}}\n")
    print(f"{len(models)} models, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
