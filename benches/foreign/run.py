"""Quantized models of other tools: daq's codes beside onnxruntime's, and the top-1 of both.

    pip install numpy onnx onnxruntime pillow
    cargo build --release -p daq-cli -p daq-quant --bins --examples
    python benches/foreign/run.py DATA [--pictures 50] [--top1 500]

DATA holds models, foreign and pictures as docs/foreign.md says. onnxruntime runs with graph optimisation off.
Codes are compared operator by operator, each fed with onnxruntime's own codes, so that one rounding
does not spread; top-1 is of the whole models.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
IMAGENET = dict(size=224, crop=0.875, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
# File, pictures, size, share of the short side, mean and std of 0..255, resampling, and the class of label 0.
MODELS = {
    "foreign/mobilenet_v2-qdq-u8u8-pt.onnx": ("imagenet-dev", 224, 0.875, IMAGENET["mean"], IMAGENET["std"], Image.BILINEAR, 0),
    "foreign/mobilenet_v2-nncf-mixed.onnx": ("imagenet-dev", 224, 0.875, IMAGENET["mean"], IMAGENET["std"], Image.BILINEAR, 0),
    "foreign/efficientnet-lite0-qop-u8s8-pc.onnx": ("imagenet-dev", 224, 0.875, [127] * 3, [128] * 3, Image.BICUBIC, 0),
    "foreign/resnet20-nncf-mixed.onnx": ("cifar10-dev", 32, 1, IMAGENET["mean"], IMAGENET["std"], Image.BILINEAR, 0),
    "models/mobilenet_v1_0.25_128-qdq-from-qat.onnx": ("imagenet-dev", 128, 0.875, [127.5] * 3, [127.5] * 3, Image.BILINEAR, 1),
    "models/mobilenet_v1_0.5_160-qdq-from-qat.onnx": ("imagenet-dev", 160, 0.875, [127.5] * 3, [127.5] * 3, Image.BILINEAR, 1),
    "models/pretrainedResnet_quant-qdq.onnx": ("cifar10-dev", 32, 1, [0] * 3, [1] * 3, Image.BILINEAR, 0),
}


def picture(path, size, share, mean, std, resample):
    image = Image.open(path).convert("RGB")
    side = min(image.size) * share
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize((size, size), resample, box=(left, top, left + side, top + side))
    x = (np.asarray(image, np.float32) - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def session(model, threads=2):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_codes(model):
    """The model with all its codes as outputs, and the names that each array of them goes by, with what to add for each."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    constants |= {t.name: t for t in model.graph.initializer}
    ends = {i.name for i in model.graph.input} | {o.name for o in model.graph.output}
    names, shifts = {}, {}
    for n in model.graph.node:
        quantizes = n.op_type == "QuantizeLinear" and n.input[0] not in constants
        integer = n.op_type.startswith("QLinear") or n.op_type == "QGemm"
        if not quantizes and not integer:
            continue
        code = n.output[0]
        names[code] = {code, code.removesuffix("_QuantizeLinear_Output"), code.removesuffix("_quantized")}
        if quantizes and len(n.input) > 2 and np.prod(constants[n.input[2]].dims) > 1:
            # Codes with a scale for each channel: daq calls the scales 1, and all channels have the usual zero point.
            zero_points = onnx.numpy_helper.to_array(constants[n.input[2]]).astype(np.int16)
            usual, counts = np.unique(zero_points, return_counts=True)
            shifts[f"{code}_by_channel"] = usual[counts.argmax()] - zero_points[:, None, None]
            names[code].add(f"{code}_by_channel")
        if quantizes and n.input[0] in ends:
            names[code].add(n.input[0])
    for n in model.graph.node:
        if n.op_type == "DequantizeLinear" and n.input[0] in names and n.output[0] in ends:
            names[n.input[0]].add(n.output[0])
    # Copies at the end: the model may call its output something else.
    for n in model.graph.node:
        if n.op_type == "Identity" and n.output[0] in ends:
            for code, others in names.items():
                if any(d.op_type == "DequantizeLinear" and d.input[0] == code and d.output[0] == n.input[0] for d in model.graph.node):
                    others.add(n.output[0])
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=c) for c in names if c not in known)
    return model, {code: {name: shifts.get(name) for name in others} for code, others in names.items()}


def named(names, code, array):
    """An array of codes under all its names."""

    def move(shift):
        if shift is None:
            return array
        info = np.iinfo(array.dtype)
        return np.clip(array + shift, info.min, info.max).astype(array.dtype)

    return {name: move(shift) for name, shift in names.get(code, {}).items()}


def compare(data, file, pictures, top1, target):
    folder, size, share, mean, std, resample, offset = MODELS[file]
    model = onnx.load(data / file)
    lines = (data / "pictures" / folder / "labels.txt").read_text().splitlines()
    labels = [line.split()[:2] for line in lines][: max(pictures, top1)]
    cut, names = with_codes(model)
    codes, plain = session(cut), session(model)
    outputs = [o.name for o in codes.get_outputs()]
    hits = 0
    with tempfile.TemporaryDirectory() as folder_of_codes:
        files, inputs = [], {}
        for i, (name, label) in enumerate(labels):
            x = picture(data / "pictures" / folder / name, size, share, mean, std, resample)
            feed = {plain.get_inputs()[0].name: x}
            inputs[f"{i:06}"] = x
            hits += int(plain.run(None, feed)[0].argmax() == int(label) + offset) if i < top1 else 0
            if i < pictures:
                arrays = {}
                for output, array in zip(outputs, codes.run(None, feed)):
                    arrays |= named(names, output, array)
                files.append(pathlib.Path(folder_of_codes) / f"{i}.npz")
                np.savez(files[-1], **arrays)
        command = [target / "examples/codes", data / file, *files]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        # The whole model on the same tensors.
        samples = pathlib.Path(folder_of_codes) / "samples"
        samples.mkdir()
        for name, x in inputs.items():
            np.save(samples / f"{name}.npy", x)
        labels_file = pathlib.Path(folder_of_codes) / "labels.txt"
        labels_file.write_text("".join(f"{i:06}.npy[0] {label}\n" for i, (_, label) in enumerate(labels)))
        daq = target / "daq"
        command = [daq, "eval", data / file, "--images", samples, "--labels", labels_file, "--class-offset", str(offset), "--json"]
        scores = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        command = [daq, "inspect", data / file, "--json"]
        inspected = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "model": file,
        **report,
        "top1_onnxruntime": hits / min(top1, len(labels)),
        "top1_daq": scores["top1"],
        "macs_8bit": inspected["macs_8bit"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--top1", type=int, default=500)
    parser.add_argument("--only", default="", help="models whose file name has this")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target/release", help="the folder of the binaries")
    args = parser.parse_args()
    print("| model | codes compared | equal | most apart | MACs in 8 bits | top-1 onnxruntime | daq |\n|---|---|---|---|---|---|---|")
    for file in MODELS:
        if args.only in file:
            r = compare(args.data, file, args.pictures, args.top1, args.target)
            equal = 1 - r["differ"] / max(r["elements"], 1)
            print(f"| {pathlib.Path(file).stem} | {r['elements']} of {r['compared']} operators, {r['left_out']} left out | {equal:.5%} | "
                  f"{r['most']} | {r['macs_8bit']:.2%} | {r['top1_onnxruntime']:.1%} | {r['top1_daq']:.1%} |", flush=True)


if __name__ == "__main__":
    main()
