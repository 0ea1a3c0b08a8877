"""Makes the files that the contenders run: one float model becomes one quantized model for each of them.

A process of its own (`prepare.py FLOAT.onnx FOLDER PICTURES|- NAME...`), so that what it loads and starts is gone
when times are taken. What is in the folder already is kept. Prints `NAME FILE` or `NAME error: ...` a line.
"""

import pathlib
import sys

import numpy as np

import models

SAMPLES = 50


class Calibration:
    """The pictures as files; the same for every tool."""

    def __init__(self, folder, name, port, shape, pictures):
        self.folder = folder / "calibration"
        self.port = port
        if not (folder / "input.f32").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            for i, array in enumerate(models.samples(name, shape, pictures, SAMPLES)):
                np.save(self.folder / f"{i:03}.npy", array)
            first = np.load(self.folder / "000.npy")
            np.save(folder / "input.npy", first)
            first.tofile(folder / "input.f32")

    def __iter__(self):
        return (np.load(file) for file in sorted(self.folder.glob("*.npy")))


def onnxruntime_static(float_model, out, calibration, form, activations, per_channel):
    """onnxruntime's own static quantization, as its documentation advises: pre-processed first, MinMax."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.arrays = iter(calibration)

        def get_next(self):
            array = next(self.arrays, None)
            return None if array is None else {calibration.port: array}

    prepared = out.parent / "preprocessed.onnx"
    if not prepared.exists():
        # Shapes are fixed, so there is nothing for symbolic inference to find.
        q.quant_pre_process(str(float_model), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=q.QuantFormat.QDQ if form == "qdq" else q.QuantFormat.QOperator,
        activation_type=q.QuantType.QUInt8 if activations == "u8" else q.QuantType.QInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=per_channel,
        calibrate_method=q.CalibrationMethod.MinMax,
    )


def nncf(float_model, out, calibration, preset):
    """NNCF's post-training quantization of the converted model, as OpenVINO's documentation advises."""
    import nncf
    import openvino as ov

    quantized = nncf.quantize(
        ov.convert_model(str(float_model)),
        nncf.Dataset(list(calibration)),
        preset=getattr(nncf.QuantizationPreset, preset),
        subset_size=SAMPLES,
    )
    ov.save_model(quantized, out, compress_to_fp16=False)


# What makes each file, by the contender's name.
RECIPES = {
    "ort-qdq-u8s8-pt": ("onnx", lambda *a: onnxruntime_static(*a, "qdq", "u8", False)),
    "ort-qdq-u8s8-pc": ("onnx", lambda *a: onnxruntime_static(*a, "qdq", "u8", True)),
    "ort-qop-u8s8-pt": ("onnx", lambda *a: onnxruntime_static(*a, "qop", "u8", False)),
    "ort-qop-u8s8-pc": ("onnx", lambda *a: onnxruntime_static(*a, "qop", "u8", True)),
    "ort-qdq-s8s8-pc": ("onnx", lambda *a: onnxruntime_static(*a, "qdq", "s8", True)),
    "nncf-mixed": ("xml", lambda *a: nncf(*a, "MIXED")),
    "nncf-performance": ("xml", lambda *a: nncf(*a, "PERFORMANCE")),
}


def make(name, float_model, folder, calibration):
    """The file of recipe `name`, made unless it is there."""
    suffix, recipe = RECIPES[name]
    out = folder / f"{name}.{suffix}"
    if not out.exists():
        print(f"making {out.name} for {folder.name}", file=sys.stderr, flush=True)
        unfinished = folder / f"unfinished-{name}.{suffix}"
        recipe(float_model, unfinished, calibration)
        for part in (".bin", f".{suffix}"):  # the weights of an .xml first, so that an .xml is never alone
            if unfinished.with_suffix(part).exists():
                unfinished.with_suffix(part).rename(out.with_suffix(part))
    return out


def main():
    float_model, folder, pictures, *names = sys.argv[1:]
    float_model, folder = pathlib.Path(float_model), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not float_model.exists() and float_model.stem in models.RESNETS:
        models.onnx.save(models.resnet(float_model.stem), float_model)
    port, shape = models.input_of(float_model)
    pictures = None if pictures == "-" else pathlib.Path(pictures)
    calibration = Calibration(folder, folder.name, port, shape, pictures)
    for name in names:
        try:
            print(name, make(name, float_model, folder, calibration), flush=True)
        except Exception as error:  # whatever a peer's tool raises: this contender does not run, the others do
            print(name, "error:", " ".join(str(error).split())[:200], flush=True)


if __name__ == "__main__":
    main()
