"""raw.py MODEL.daq f32|u8 f32|u8 INPUT OUTPUT: one predict on a file of raw elements."""

import sys

import daq
import numpy as np

TYPES = {"f32": np.float32, "u8": np.uint8}
path, given, wanted, source, target = sys.argv[1:]
model = daq.Model(path)
(x,) = model.inputs
outputs = model.predict(np.fromfile(source, TYPES[given]).reshape(x.shape), dtype=TYPES[wanted])
with open(target, "wb") as file:
    for output in outputs.values():
        file.write(output.tobytes())
