"""raw.py MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]: predicts on a file of raw elements; with RUNS as
many times, and prints the least microseconds that one took."""

import sys
import time

import daq
import numpy as np

TYPES = {"f32": np.float32, "u8": np.uint8}
path, given, wanted, source, target, *runs = sys.argv[1:]
model = daq.Model(path)
(x,) = model.inputs
inputs = {x.name: np.fromfile(source, TYPES[given]).reshape(x.shape)}
dtype = TYPES[wanted]
least = float("inf")
for _ in range(int(runs[0]) if runs else 1):
    start = time.perf_counter()
    outputs = model.predict(inputs, dtype)
    least = min(least, time.perf_counter() - start)
if runs:
    print(f"{1e6 * least:.1f}")
with open(target, "wb") as file:
    for output in outputs.values():
        file.write(output.tobytes())
