"""PP-OCR's recogniser on text lines of any width: daq's text beside onnxruntime's.

    pip install numpy onnx onnxruntime pillow
    cargo build --release -p daq-cli
    python benches/foreign/ocr.py MODEL.onnx PICTURES [--width 640] [--first 100] [--quantized QUANT.onnx]

MODEL is ch_PP-OCRv4_rec_infer.onnx of the Python package rapidocr-onnxruntime, PICTURES a folder with labels.txt: file, 0
or 1 for 0 or 180 degrees, text. Each line gets the height 48 and its own width, or is padded to --width; the plan is made again
for each width. To quantize the model on other lines than are scored:

    python benches/foreign/ocr.py MODEL.onnx PICTURES --lines 100 --width 640 --save calibration
    daq quantize --data calibration --shape x=1,3,48,640 --other-shape x=1,3,48,320 -o QUANT.onnx MODEL.onnx table.txt
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


def line(path, turned, width):
    image = Image.open(path).convert("RGB")
    image = image.rotate(180) if turned else image
    own = max(8, int(np.ceil(48 * image.width / image.height)))
    own = min(own, width or own)
    x = np.asarray(image.resize((own, 48), Image.BILINEAR), np.float32)[:, :, ::-1] / 127.5 - 1
    x = np.pad(x, [(0, 0), (0, (width or own) - own), (0, 0)])
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def text(scores, alphabet):
    best = scores[0].argmax(1)
    keep = [b for i, b in enumerate(best) if b and (i == 0 or b != best[i - 1])]
    return "".join(alphabet[b] for b in keep)


def daq(binary, model, folder, out, *flags):
    subprocess.run([binary, "run", model, folder, "-o", out, "-q", *flags], check=True, stdout=subprocess.DEVNULL)
    return np.load(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("--first", type=int, default=0, help="the first line to take")
    parser.add_argument("--lines", type=int, default=10**9, help="how many")
    parser.add_argument("--width", type=int)
    parser.add_argument("--quantized", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path, help="only write the tensors, to calibrate with")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/daq")
    args = parser.parse_args()
    meta = {p.key: p.value for p in onnx.load(args.model).metadata_props}
    alphabet = ["", *meta["character"].split("\n"), " "]
    rows = [row.split(" ", 2) for row in (args.pictures / "labels.txt").read_text().splitlines()]
    rows = rows[args.first :][: args.lines]
    session = onnxruntime.InferenceSession(str(args.model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with tempfile.TemporaryDirectory() as folder:
        folder = args.save or pathlib.Path(folder)
        (folder / "lines").mkdir(parents=True, exist_ok=True)
        wanted = []
        for i, (file, turned, _) in enumerate(rows):
            x = line(args.pictures / file, turned == "1", args.width)
            np.save(folder / f"lines/{i:04}.npy", x)
            if not args.save:
                wanted.append(text(session.run(None, {name: x})[0], alphabet))
        if args.save:
            return
        truth = [row[2] for row in rows]
        right = sum(a == b for a, b in zip(wanted, truth))
        print(f"onnxruntime, float: {right} of {len(rows)} lines right")
        wide = len({np.load(f).shape for f in (folder / "lines").iterdir()})
        for kind, model in ("float", args.model), ("8-bit", args.quantized):
            if not model:
                continue
            out = daq(args.binary, model, folder / "lines", folder / "out.npz", "--dynamic")
            output = next(iter(out)).split("/")[0]
            found = [text(out[f"{output}/{i:04}"], alphabet) for i in range(len(rows))]
            right = sum(a == b for a, b in zip(found, truth))
            same = sum(a == b for a, b in zip(found, wanted))
            print(f"daq, {kind}: {right} lines right, text equal to onnxruntime's on {same} ({wide} widths)")

if __name__ == "__main__":
    main()
