"""Writes preprocess_pillow.txt: what Pillow makes of a picture given by a formula, in torchvision's geometry.

Each line: source width and height, resize, interpolation, color, target height and width, then the pixels.
Made with Pillow 13.0 and numpy: python preprocess_pillow.py > preprocess_pillow.txt
"""
import numpy as np
from PIL import Image

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST, "area": Image.BOX}


def source(w, h):
    x, y, c = np.meshgrid(np.arange(w), np.arange(h), np.arange(3), indexing="xy")
    return Image.fromarray(((x * 7 + y * 13 + c * 29 + x * y % 31 * 5) % 256).astype(np.uint8))


def fit(im, resize, flt, th, tw):
    w, h = im.size
    kind, _, arg = resize.partition(":")
    if kind == "stretch":
        return np.asarray(im.resize((tw, th), flt))
    if kind == "crop":  # a part of the largest central rectangle of the target's shape
        unit = min(w / tw, h / th) * float(arg)
        cw, ch = max(1, int(tw * unit)), max(1, int(th * unit))
        left, top = (w - cw) // 2, (h - ch) // 2
        return np.asarray(im.crop((left, top, left + cw, top + ch)).resize((tw, th), flt))
    if arg == "right":  # PaddleOCR: full height, at most the target's width
        nw, nh = min(tw, int(np.ceil(th * w / h))), th
    else:
        scale = min(tw / w, th / h)
        nw, nh = int(w * scale + 0.5), int(h * scale + 0.5)
    out = np.zeros((th, tw) + np.asarray(im).shape[2:], np.uint8)
    left, top = ((tw - nw) // 2, (th - nh) // 2) if arg == "center" else (0, 0)
    out[top:top + nh, left:left + nw] = np.asarray(im.resize((nw, nh), flt))
    return out


for w, h, resize, name, color, th, tw in [
    (37, 23, "stretch", "bilinear", "rgb", 6, 8),
    (37, 23, "stretch", "bicubic", "bgr", 6, 8),
    (37, 23, "stretch", "nearest", "rgb", 6, 8),
    (36, 24, "stretch", "area", "rgb", 6, 9),
    (37, 23, "stretch", "area", "gray", 6, 8),
    (5, 4, "stretch", "bilinear", "rgb", 9, 8),
    (5, 4, "stretch", "bicubic", "gray", 9, 8),
    (37, 23, "crop:0.875", "bilinear", "rgb", 7, 7),
    (23, 37, "crop:0.875", "bicubic", "rgb", 7, 7),
    (50, 31, "crop:0.8", "nearest", "gray", 9, 9),
    (41, 40, "crop:1", "bilinear", "gray", 9, 9),
    (60, 20, "crop:0.75", "bicubic", "rgb", 6, 8),
    (20, 60, "crop:0.9", "bilinear", "rgb", 6, 8),
    (37, 23, "pad", "bilinear", "rgb", 8, 8),
    (23, 37, "pad:center", "bicubic", "rgb", 8, 9),
    (37, 23, "pad:right", "bilinear", "rgb", 5, 12),
    (60, 10, "pad:right", "bilinear", "rgb", 5, 12),
]:
    im = source(w, h)
    a = fit(im.convert("L") if color == "gray" else im, resize, FILTERS[name], th, tw)
    if color == "bgr":
        a = a[:, :, ::-1]
    print(w, h, resize, name, color, th, tw, *a.reshape(-1))
