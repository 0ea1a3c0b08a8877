"""Accuracy of daq's methods and passes beside onnxruntime's and NNCF's, on the same pictures.

Pictures are numbered by name; 100 of the even ones (the same every time) calibrate, the odd ones score. For each
quantized model: top-1, the share of pictures with the float model's best class, and the mean of
10 log10(sum ref^2 / sum (ref - out)^2). daq's models run in daq, the others in onnxruntime with graph optimisation
off (its fused kernels saturate on some CPUs); each is compared with the float model in the same runtime and preparation.
Prints a Markdown table for docs/accuracy.md. The standard error of a share p of n pictures is sqrt(p (1 - p) / n).
"""

import argparse
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image

MODELS = {
    "mobilenet_v2": dict(pictures="imagenet-dev", crop=0.875, color="rgb", filter="bilinear", size=(224, 224),
                         mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    "efficientnet-lite0": dict(pictures="imagenet-dev", crop=0.875, color="rgb", filter="bicubic", size=(224, 224),
                               mean=[127] * 3, std=[128] * 3),
    "squeezenet1.0-dc": dict(pictures="imagenet-dev", crop=0.8867, color="bgr", filter="bilinear", size=(227, 227),
                             mean=[104, 117, 123], std=[1] * 3),
    "ppocr_cls_static_48x192": dict(pictures="textlines-dev", crop=None, color="bgr", filter="bilinear", size=(48, 192),
                                    mean=[127.5] * 3, std=[127.5] * 3),
}

RECIPES = [
    ("MinMax", ["--calibration", "minmax", "--recovery", "none"]),
    ("average", ["--calibration", "average", "--recovery", "none"]),
    ("percentile 99.99", ["--calibration", "percentile", "--recovery", "none"]),
    ("entropy", ["--calibration", "entropy", "--recovery", "none"]),
    ("MSE", ["--calibration", "mse", "--recovery", "none"]),
    ("best", ["--recovery", "none"]),
    ("auto", ["--calibration", "auto", "--recovery", "none"]),
    ("best + equalize", ["--recovery", "equalize"]),
    ("best + absorption", ["--recovery", "absorption"]),
    ("best + weight-scales", ["--recovery", "weight-scales"]),
    ("best + rounding", ["--recovery", "rounding"]),
    ("best + bias", ["--recovery", "bias"]),
    ("best + activation-bias", ["--recovery", "activation-bias"]),
    ("best + rounding, bias", ["--recovery", "rounding,bias"]),
    ("**default**: best + equalize, rounding, bias", []),
    ("best + all passes", ["--recovery", "all"]),
    ("`--weights asymm`, no pass", ["--weights", "asymm", "--recovery", "none"]),
    ("`--weights asymm`, default passes", ["--weights", "asymm"]),
]


def split(source, work):
    """Copies the even and the odd pictures into folders of their own, with the labels of the odd ones."""
    rows = [line.split() for line in open(source / "labels.txt") if line.strip() and line[0] != "#"]
    rows.sort(key=lambda row: row[0])
    for name in ("even", "odd"):
        (work / name).mkdir(parents=True, exist_ok=True)
    labels = []
    for i, row in enumerate(rows):
        file = pathlib.Path(row[0]).name
        shutil.copy(source / row[0], work / ("odd" if i % 2 else "even") / file)
        if i % 2:
            labels.append((file, int(row[1])))
    (work / "odd" / "labels.txt").write_text("".join(f"{f} {c}\n" for f, c in labels))
    return sorted(p.name for p in (work / "even").iterdir()), labels


def prepare(path, p):
    """A picture as the model takes it, by Pillow."""
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
    image = Image.open(path).convert("RGB")
    height, width = p["size"]
    if p["crop"]:
        side = round(min(image.size) * p["crop"])
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        pixels = np.asarray(image.resize((width, height), filters[p["filter"]], box), np.float32)
    else:
        wide = min(width, max(1, round(image.width * height / image.height)))
        pixels = np.zeros((height, width, 3), np.float32)
        pixels[:, :wide] = np.asarray(image.resize((wide, height), filters[p["filter"]]), np.float32)
    if p["color"] == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.float32(p["mean"])) / np.float32(p["std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def daq_flags(p):
    join = lambda v: ",".join(map(str, v))
    resize = f"crop:{p['crop']}" if p["crop"] else "pad:right"
    return ["--resize", resize, "--interpolation", p["filter"], "--color", p["color"],
            "--mean", join(p["mean"]), "--std", join(p["std"])]


def session(path):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def outputs(path, inputs):
    s = session(path)
    name = s.get_inputs()[0].name
    return np.stack([s.run(None, {name: x})[0].reshape(-1) for x in inputs])


def scores(found, expected, classes):
    signal, noise = (expected ** 2).sum(1), ((expected - found) ** 2).sum(1)
    best = found.argmax(1)
    return dict(top1=float((best == classes).mean()), agreement=float((best == expected.argmax(1)).mean()),
                sqnr_db=float((10 * np.log10(signal / np.maximum(noise, 1e-30))).mean()), n=len(best))


def attempt(measure):
    """What another tool made need not run: then there is nothing to measure."""
    try:
        return measure()
    except Exception as why:
        print(why, file=sys.stderr)
        return None


def onnxruntime_models(model, calibration, work):
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.items = iter([{name: x} for x in calibration])

        def get_next(self):
            return next(self.items, None)

    name = session(model).get_inputs()[0].name
    prepared = work / "prepared.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    for label, per_channel, weights in [
        ("onnxruntime MinMax, per channel", True, QuantType.QInt8),
        ("onnxruntime MinMax, per tensor", False, QuantType.QInt8),
        ("onnxruntime MinMax, per tensor, u8 weights", False, QuantType.QUInt8),
    ]:
        path = work / "ort.onnx"
        quantize_static(str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        activation_type=QuantType.QUInt8, weight_type=weights, calibrate_method=CalibrationMethod.MinMax)
        yield label, path


def nncf_models(model, calibration, work):
    import nncf
    import onnx
    float_model = onnx.load(str(model))
    name = session(model).get_inputs()[0].name
    data = nncf.Dataset(calibration, lambda x: {name: x})
    for label, preset in [("NNCF, default (mixed)", nncf.QuantizationPreset.MIXED)]:
        path = work / "nncf.onnx"
        onnx.save(nncf.quantize(float_model, data, preset=preset, subset_size=len(calibration)), str(path))
        yield label, path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, default="../shared/data", help="holds models/ and pictures/")
    parser.add_argument("--daq", default="target/release/daq")
    parser.add_argument("--work", type=pathlib.Path, default="target/accuracy")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--no-peers", action="store_true", help="daq only")
    parser.add_argument("--recipes", nargs="*", default=[""], help="only daq's rows whose name holds one of these")
    args = parser.parse_args()
    recipes = [r for r in RECIPES if any(text in r[0] for text in args.recipes)]
    for model in args.models:
        p, path = MODELS[model], args.data / "models" / f"{model}.onnx"
        work = args.work / p["pictures"]
        even, labels = split(args.data / "pictures" / p["pictures"], work)
        rows = []
        chosen = random.Random(0).sample(even, min(100, len(even)))
        calibration_dir = work / "calibration"
        shutil.rmtree(calibration_dir, ignore_errors=True)
        calibration_dir.mkdir()
        for name in chosen:
            shutil.copy(work / "even" / name, calibration_dir)
        run = lambda *a: json.loads(subprocess.run([args.daq, "--quiet", *a, "--json"], check=True, stdout=subprocess.PIPE).stdout)
        evaluate = lambda m, *a: run("eval", str(m), "--images", str(work / "odd"), *a)
        flags = daq_flags(p)
        rows.append(("daq, float", evaluate(path, *flags)))
        for label, recipe in recipes:
            made = work / "daq.onnx"
            run("quantize", "--force", "--image_dir", str(calibration_dir), *flags, *recipe, "-o", str(made),
                str(path), str(work / "daq.txt"))
            rows.append((label, evaluate(made, "--reference", str(path))))
            print(model, label, rows[-1][1], file=sys.stderr)
        if not args.no_peers:
            calibration = [prepare(calibration_dir / name, p) for name in sorted(chosen)]
            inputs = [prepare(work / "odd" / name, p) for name, _ in labels]
            classes = np.array([c for _, c in labels])
            expected = outputs(path, inputs)
            rows.append(("onnxruntime, float", scores(expected, expected, classes)))
            for name, peers in (("onnxruntime", onnxruntime_models), ("NNCF", nncf_models)):
                try:
                    for label, made in peers(path, calibration, work):
                        rows.append((label, attempt(lambda: scores(outputs(made, inputs), expected, classes))))
                        print(model, label, rows[-1][1], file=sys.stderr)
                except Exception as why:
                    print(model, name, why, file=sys.stderr)
                    rows.append((name, None))
        n = rows[0][1]["n"]
        print(f"\n## {model}\n\n{n} pictures scored, {len(chosen)} calibrated with; one standard error after ±.\n")
        print("| | top-1 | agreement | SQNR |\n|---|---|---|---|")
        for label, s in rows:
            if s is None:
                print(f"| {label} | fails | | |")
                continue
            share = lambda v: "" if v is None else f"{100 * v:.1f} ± {100 * math.sqrt(v * (1 - v) / n):.1f} %"
            is_float = label.endswith("float")
            db = "" if is_float else f"{s['sqnr_db']:.1f} dB"
            print(f"| {label} | {share(s['top1'])} | {'' if is_float else share(s['agreement'])} | {db} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
