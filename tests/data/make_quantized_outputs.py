"""Writes what onnxruntime computes for models that `daq quantize` made of the example.

    pip install numpy onnx onnxruntime
    cargo build --release
    python tests/data/make_quantized_outputs.py target/release/daq

For the default options and for --power-of-two-scales, crates/daq-quant/tests/data/quantized gets the
model (.onnx) and an .npz file with the outputs of all pictures (`outputs`) and 8-bit tensors inside of
the model: of the default model the codes of some (`codes NAME`, of the first SHOWN pictures), of the
other a 64-bit FNV-1a hash of each one's codes (`hash NAME`, of the first HASHED pictures).
crates/daq-quant/tests/all/quantized.rs compares. The pictures are prepared by daq: an Identity model
hands out what a model is given. Graph optimisation is off, so that onnxruntime computes
QuantizeLinear/DequantizeLinear models in float.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/textlines"
FLOAT = EXAMPLE / "ppocr_cls_static_48x192.onnx"
OUT = ROOT / "crates/daq-quant/tests/data/quantized"
SHAPE = [1, 3, 48, 192]
SHOWN, HASHED = 2, 10
# Tensors from the first layer to the last, whose codes are kept.
TENSORS = ["conv2d_53.tmp_0", "Mul@0", "relu_0.tmp_0", "relu_1.tmp_0", "pool2d_0.tmp_0", "tmp_0", "conv2d_57.tmp_0", "relu_3.tmp_0"]


def prepared(daq, folder):
    """What a model is given of each picture."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "same.onnx")
    settings = ["--preprocess", EXAMPLE / "preprocess.toml"]
    command = [daq, "run", folder / "same.onnx", EXAMPLE / "pictures", *settings, "-o", folder / "x.npz"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.load(folder / "x.npz")["y"]


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return np.array([h], np.uint64).astype(np.int64)


def main(daq):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        inputs = prepared(daq, folder)
        for name, flags in [("default", []), ("power_of_two", ["--power-of-two-scales"])]:
            path = OUT / f"{name}.onnx"
            settings = ["--preprocess", EXAMPLE / "preprocess.toml", "--image_dir", EXAMPLE / "pictures"]
            subprocess.run([daq, "quantize", *settings, *flags, "-o", path, FLOAT, folder / "t.txt", "--force"], check=True)
            model = onnx.load(path)
            output = model.graph.output[0].name
            codes = {n.input[0]: n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
            for tensor in codes.values():
                model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.UINT8, None))
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
            count = SHOWN if name == "default" else HASHED
            arrays = {"outputs": np.concatenate([session.run([output], {"x": x[None]})[0] for x in inputs])}
            inside = [session.run(list(codes.values()), {"x": x[None]}) for x in inputs[:count]]
            for i, tensor in enumerate(codes):
                joined = np.concatenate([one[i] for one in inside])
                if name == "power_of_two":
                    arrays[f"hash {tensor}"] = fnv(joined.tobytes())
                elif tensor in TENSORS:
                    arrays[f"codes {tensor}"] = joined
            np.savez_compressed(OUT / f"{name}.npz", **arrays)


main(pathlib.Path(sys.argv[1]).resolve())
