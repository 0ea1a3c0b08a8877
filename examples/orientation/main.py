"""Which way up is a line of text? main.py MODEL.daq FRAME.ppm, a frame of 192 x 48 pixels as a camera gives."""

import sys

import daq
import numpy as np

HEADER = b"P6\n192 48\n255\n"
model = daq.Model(sys.argv[1])
with open(sys.argv[2], "rb") as file:
    if file.read(len(HEADER)) != HEADER:
        sys.exit("error: the frame is no binary PPM of 192 x 48 pixels")
    frame = np.frombuffer(file.read(), np.uint8).reshape(48, 192, 3)
# As the model was trained: planes of blue, green and red from -1 to 1.
pixels = (frame[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
(scores,) = model.predict(np.ascontiguousarray(pixels)).values()
best = int(scores[0].argmax())
print(f"{['0', '180'][best]} degrees, {scores[0, best]:.4f}")
