"""Whose rounding is off: daq's codes and onnxruntime's beside those of exact arithmetic, for QDQ models.

    pip install numpy onnx onnxruntime pillow
    cargo build --release -p daq-quant --examples && cargo build --release -p daq-cli
    python benches/foreign/exact.py DATA [--pictures 50] [--top1 0] [--only NAME]

Every operator between codes is computed here as the file says, in double precision: products of a code and a weight less
their zero points are whole numbers whose sums are exact, and what the scales add is off by less than 1e-10 of a step. Each
operator is fed with onnxruntime's own codes (graph optimisation off). For codes that differ the distance of the exact value from
the middle between two codes tells how little it takes. With --top1, whole models run too, in exact arithmetic and in the
runtimes': how many pictures they put right, and on how many they give the class of the exact one and that of onnxruntime. Then
onnxruntime is also its own peer: with its other float kernels (graph optimisation on, but for what concerns quantization), which
add the same products in another order, and with its integer kernels (all on), which saturate on CPUs without VNNI.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from run import MODELS, ROOT, named, picture, session, with_codes


def along(array, axis, rank):
    """Scales or zero points as they spread over a tensor."""
    return array.reshape([-1 if i == axis else 1 for i in range(rank)]) if array.size > 1 else array.reshape(())


def convolve(x, w, bias, group, strides, pads, dilations):
    """A convolution of one picture in double precision, tap by tap."""
    top, left, bottom, right = pads
    x = np.pad(x[0], [(0, 0), (top, bottom), (left, right)])
    height, width = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:], w.shape[2:], strides, dilations)
    )
    y = np.zeros((w.shape[0], height, width))
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            a, b = i * dilations[0], j * dilations[1]
            tap = x[:, a : a + strides[0] * (height - 1) + 1 : strides[0], b : b + strides[1] * (width - 1) + 1 : strides[1]]
            if group == 1:
                y += np.tensordot(w[:, :, i, j], tap, 1)
            elif w.shape[1] == 1 and group == w.shape[0]:
                y += w[:, :1, i, j, None] * tap
            else:
                tap, each = tap.reshape(group, -1, height * width), w[:, :, i, j].reshape(group, -1, w.shape[1])
                y += (each @ tap).reshape(y.shape)
    return (y + (0 if bias is None else bias[:, None, None]))[None]


class Exact:
    """A QDQ graph in double precision."""

    def __init__(self, model):
        self.graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for n in self.graph.node:
            if n.op_type == "Constant":
                self.constants[n.output[0]] = onnx.helper.get_node_attr_value(n, "value") and numpy_helper.to_array(n.attribute[0].t)
        # What depends on no input is computed once.
        self.known = dict(self.constants)
        self.left = [n for n in self.graph.node if not self.constant(n)]

    def constant(self, node):
        inputs = [i for i in node.input if i]
        if node.op_type == "Constant":
            return True
        if not inputs or any(i not in self.known for i in inputs):
            return False
        self.known[node.output[0]] = self.compute(node, self.known)[0]
        return True

    def compute(self, n, values):
        """The output of a node; of a QuantizeLinear the value in steps too."""
        x, *others = [values[i] if i else None for i in n.input]
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
        op = n.op_type
        if op in ("QuantizeLinear", "DequantizeLinear"):
            scale, axis = others[0].astype(np.float64), attrs.get("axis", 1)
            zero_point = others[1] if len(others) > 1 else np.uint8(0)
            kind = np.asarray(zero_point).dtype
            axis = axis % max(x.ndim, 1)
            scale, zero_point = along(scale, axis, x.ndim), along(np.asarray(zero_point, np.float64), axis, x.ndim)
            if op == "DequantizeLinear":
                return (x.astype(np.float64) - zero_point) * scale, None
            info = np.iinfo(kind)
            steps = x / scale
            return np.clip(np.rint(steps) + zero_point, info.min, info.max).astype(kind), steps
        if op == "Conv":
            w, bias = others[0].astype(np.float64), others[1] if len(others) > 1 else None
            ones = [1] * 2
            how = attrs.get("group", 1), attrs.get("strides", ones), attrs.get("pads", [0] * 4), attrs.get("dilations", ones)
            return convolve(x, w, bias, *how), None
        if op == "Gemm":
            w = others[0].astype(np.float64)
            w = w.T if attrs.get("transB") else w
            return attrs.get("alpha", 1.0) * (x @ w) + attrs.get("beta", 1.0) * (others[1] if len(others) > 1 else 0), None
        if op == "Clip":
            low, high = (others + [None, None])[:2]
            return np.clip(x, low, high) if low is not None or high is not None else x, None
        if op == "Relu":
            return np.maximum(x, 0), None
        if op == "Add":
            return x + others[0], None
        if op == "GlobalAveragePool":
            return x.mean((2, 3), keepdims=True), None
        if op == "Flatten":
            return x.reshape(x.shape[0], -1), None
        if op == "Softmax":
            e = np.exp(x - x.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True), None
        if op == "Identity":
            return x, None
        raise NotImplementedError(op)

    def run(self, x, given=None, see=None):
        """The output. Tensors of codes are those of `given` where there are; `see(name, codes, steps, node)` gets what was
        computed in their place."""
        values = dict(self.known)
        values[self.graph.input[0].name] = x.astype(np.float64)
        for n in self.left:
            y, steps = self.compute(n, values)
            if steps is not None and see:
                see(n.output[0], y, steps, n)
            values[n.output[0]] = given.get(n.output[0], y) if given else y
        return values[self.graph.output[0].name]


def optimised(model, integers):
    """A session of onnxruntime with all optimisations, or with those that leave quantization alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def whole(file, model, exact, inputs, scratch, target):
    """The classes that whole models give, by who computes them."""
    samples = scratch / "samples"
    samples.mkdir()
    for i, x in enumerate(inputs):
        np.save(samples / f"{i:06}.npy", x)
    command = [target / "daq", "run", file, samples, "-o", scratch / "whole.npz"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (ours,) = np.load(scratch / "whole.npz").values()

    def run(plain):
        return [plain.run(None, {plain.get_inputs()[0].name: x})[0].argmax() for x in inputs]

    return {
        "exact": [exact.run(x).argmax() for x in inputs],
        "daq": [y.argmax() for y in ours],
        "onnxruntime": run(session(model)),
        "onnxruntime, other float kernels": run(optimised(model, False)),
        "onnxruntime, integers": run(optimised(model, True)),
    }


def compare(data, file, pictures, top1, target):
    folder, size, share, mean, std, resample, offset = MODELS[file]
    model = onnx.load(data / file)
    lines = (data / "pictures" / folder / "labels.txt").read_text().splitlines()
    labels = [line.split()[:2] for line in lines]
    load = lambda name: picture(data / "pictures" / folder / name, size, share, mean, std, resample)
    cut, names = with_codes(model)
    codes, exact = session(cut), Exact(model)
    outputs = [o.name for o in codes.get_outputs()]
    counts = {who: np.zeros(3) for who in ("daq", "onnxruntime")}  # elements, differ, most
    middle = {who: 0.0 for who in counts}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for i, (name, _) in enumerate(labels[:pictures]):
            x = load(name)
            theirs = dict(zip(outputs, codes.run(None, {codes.get_inputs()[0].name: x})))
            arrays = {}
            for code, array in theirs.items():
                arrays |= named(names, code, array)
            np.savez(scratch / "codes.npz", **arrays)
            (scratch / "daq").mkdir(exist_ok=True)
            command = [target / "examples/codes", data / file, scratch / "codes.npz", "--save", scratch / "daq"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            ours = np.load(scratch / "daq/codes.npz")

            def see(code, y, steps, node):
                known = [a for a in names.get(code, ()) if a in ours]
                if not known:
                    return
                unsigned = lambda q: np.int16(q.view(np.uint8) ^ 0x80 if q.dtype == np.int8 else q)
                for who, found in ("onnxruntime", theirs[code]), ("daq", ours[known[0]]):
                    want = named(names, code, y)[known[0]] if who == "daq" else y
                    apart = np.abs(unsigned(want) - unsigned(found).reshape(y.shape))
                    other = apart > 0
                    counts[who][:2] += y.size, other.sum()
                    counts[who][2] = max(counts[who][2], apart.max())
                    # How far from the middle between two codes.
                    near = np.abs(steps[other] - np.floor(steps[other]) - 0.5)
                    middle[who] = max(middle[who], near.max(initial=0))

            exact.run(x, {k: v for k, v in theirs.items() if k in names}, see)
        labels = labels[:top1]
        inputs = [load(name) for name, _ in labels]
        classes = whole(data / file, model, exact, inputs, scratch, target) if labels else {}
    right = [int(label) + offset for _, label in labels]
    return counts, middle, right, classes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--top1", type=int, default=0, help="pictures that the whole model runs on, exactly")
    parser.add_argument("--only", default="", help="models whose file name has this")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target/release", help="the folder of the binaries")
    args = parser.parse_args()
    print("| model | codes | runtime | differ from exact ones | most apart | farthest from the middle, in steps |\n|---|---|---|---|---|---|")
    rows = []
    for file in MODELS:
        if args.only not in file or "qop" in file:
            continue
        counts, middle, right, classes = compare(args.data, file, args.pictures, args.top1, args.target)
        name = pathlib.Path(file).stem
        for who, (elements, differ, most) in counts.items() if args.pictures else ():
            print(f"| {name} | {elements:.0f} | {who} | {differ:.0f} ({differ / max(elements, 1):.1e}) | {most:.0f} | {middle[who]:.1e} |", flush=True)
        for who, found in classes.items():
            shares = [np.mean(np.equal(found, those)) for those in (right, classes["exact"], classes["onnxruntime"])]
            rows.append(" | ".join([f"| {name}", who, *(f"{share:.1%}" for share in shares)]) + " |")
    if rows:
        print("\n| model | computed by | top-1 | the exact class | onnxruntime's class |\n|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
