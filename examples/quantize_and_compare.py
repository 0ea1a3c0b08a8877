"""Quantizes a model and compares it with the float one in onnxruntime, step by step.

    python examples/quantize_and_compare.py [MODEL.onnx PICTURES]

Without arguments: the project's example. MODEL.onnx is a classifier of torchvision, such as comes of

    torch.onnx.export(torchvision.models.mobilenet_v2(weights="DEFAULT"), torch.zeros(1, 3, 224, 224), "m.onnx")

and PICTURES a folder of photos. Needs the package (pip install ./bindings/python), onnxruntime, onnx and
Pillow.
"""

# %% What to quantize
import os
import sys
import tempfile
from pathlib import Path

import daq
import numpy as np
import onnx
import onnxruntime
from PIL import Image

here = Path(__file__).parent / "textlines"
model, pictures = sys.argv[1:] or [here / "ppocr_cls_static_48x192.onnx", here / "pictures"]
folder = Path(tempfile.mkdtemp())
quantized = folder / "model.daq"


# %% Prepare pictures as in training
def photo(path):
    """As torchvision's classifiers want it: the middle 224 of 256 pixels, ImageNet's mean and std."""
    picture = Image.open(path).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize([round(n * scale) for n in picture.size], Image.BILINEAR)
    left, top = ((n - 224) // 2 for n in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224))) / 255
    return (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def text_line(path):
    """As the example wants it: 48 rows, black to 192 columns at the right, BGR, from -1 to 1."""
    picture = Image.open(path).convert("RGB")
    picture = picture.resize((min(192, round(picture.width * 48 / picture.height)), 48), Image.BILINEAR)
    pixels = np.zeros((48, 192, 3))
    pixels[:, : picture.width] = np.asarray(picture)[..., ::-1]
    return pixels / 127.5 - 1


prepare = photo if sys.argv[1:] else text_line
paths = sorted(path for path in Path(pictures).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
inputs = [prepare(path).transpose(2, 0, 1)[None].astype(np.float32) for path in paths]
calibration, others = inputs[::2], inputs[1::2]

# %% Quantize: an onnx.ModelProto, a path or bytes, and arrays or a folder of pictures
summary = daq.quantize(
    onnx.load(model),
    calibration,
    quantized,
    progress=lambda stage, done, total: print(f"\r{stage} {done}/{total}  ", end="", file=sys.stderr),
)
print(file=sys.stderr)
print(f"{summary['operators_8bit']} of {summary['operators']} operators in 8 bits")
sizes = [os.path.getsize(path) for path in (model, quantized)]
print(f"{sizes[0] / 1e6:.2f} MB became {sizes[1] / 1e6:.2f} MB")

# %% Compare, on pictures that it was not quantized with
float_session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
daq_model = daq.Model(quantized, threads=2)
(x,) = daq_model.inputs
same, signal, noise = 0, 0.0, 0.0
for array in others:
    (wanted,) = float_session.run(None, {x.name: array})
    (found,) = daq_model.predict({x.name: array}).values()
    same += wanted.argmax() == found.argmax()
    signal += float((wanted**2).sum())
    noise += float(((wanted - found) ** 2).sum())
print(f"the same class for {same} of {len(others)} other pictures")
print(f"signal to noise ratio of the output: {10 * np.log10(signal / noise):.1f} dB")
