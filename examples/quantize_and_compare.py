"""Quantizes a model and compares it with the float one in onnxruntime, step by step.

    python examples/quantize_and_compare.py [MODEL.onnx PICTURES [PREPROCESS.toml]]

Without arguments: the project's example. Needs the package (pip install ./bindings/python) and
onnxruntime, onnx and Pillow.
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

here = Path(__file__).parent / "textlines"
model, pictures, *settings = sys.argv[1:] or [
    here / "ppocr_cls_static_48x192.onnx",
    here / "pictures",
    here / "preprocess.toml",
]
folder = Path(tempfile.mkdtemp())
quantized = folder / "model.daq"

# %% Quantize: an onnx.ModelProto, a path or bytes, and a folder of pictures
summary = daq.quantize(
    onnx.load(model),
    pictures,
    quantized,
    samples=50,
    preprocess=settings[0] if settings else None,
    progress=lambda stage, done, total: print(f"\r{stage} {done}/{total}  ", end="", file=sys.stderr),
)
print(file=sys.stderr)
print(f"{summary['operators_8bit']} of {summary['operators']} operators in 8 bits")
sizes = [os.path.getsize(path) for path in (model, quantized)]
print(f"{sizes[0] / 1e6:.2f} MB became {sizes[1] / 1e6:.2f} MB")

# %% The same inputs for both. Random ones do to see that they agree.
float_session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
daq_model = daq.Model(quantized, threads=2)
(x,) = daq_model.inputs
rng = np.random.default_rng(0)
signal = noise = 0.0
for _ in range(10):
    array = rng.uniform(-1, 1, x.shape).astype(np.float32)
    (wanted,) = float_session.run(None, {x.name: array})
    (found,) = daq_model.predict({x.name: array}).values()
    signal += float((wanted**2).sum())
    noise += float(((wanted - found) ** 2).sum())
print(f"signal to noise ratio of the output: {10 * np.log10(signal / noise):.1f} dB")
