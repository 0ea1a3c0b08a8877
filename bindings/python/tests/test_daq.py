"""daq from Python, on the project's example. DAQ names the daq command, MODEL a model that it made."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import daq
import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples/textlines"
FLOAT = EXAMPLE / "ppocr_cls_static_48x192.onnx"
SHAPE = (1, 3, 48, 192)


@pytest.fixture(scope="module")
def model():
    return daq.Model(os.environ["MODEL"], threads=2)


def codes(seed=0):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def real(array, tensor):
    return ((array.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)).astype(np.float32)


def test_tensors(model):
    (x,), (y,) = model.inputs, model.outputs
    assert (x.name, tuple(x.shape), x.dtype, x.layout) == ("x", SHAPE, "uint8", "plain")
    assert x.scale == pytest.approx(2 / 255, rel=0.01) and abs(x.zero_point - 127) <= 1
    assert y.shape == [1, 2] and "float32" not in repr(y) and y.name in repr(y)


def test_four_predicts_agree(model):
    (x,), (y,) = model.inputs, model.outputs
    for seed in range(3):
        c = codes(seed)
        out = model.predict({"x": c}, dtype=np.uint8)[y.name]
        assert out.dtype == np.uint8 and out.shape == (1, 2)
        assert real(out, y).sum() == pytest.approx(1, abs=2 * y.scale)
        assert np.array_equal(model.predict({"x": real(c, x)}, dtype="uint8")[y.name], out)
        for given in c, real(c, x):
            result = model.predict(given)[y.name]
            assert result.dtype == np.float32 and np.array_equal(result, real(out, y))


def test_arrays_need_not_be_contiguous(model):
    wide = np.zeros(SHAPE[:3] + (384,), np.uint8)
    wide[..., ::2] = codes()
    (a,) = model.predict(wide[..., ::2]).values()
    (b,) = model.predict(codes()).values()
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    "given, error, text",
    [
        ({"x": codes()[0]}, daq.DaqError, "input `x` has shape [3, 48, 192]"),
        ({"y": codes()}, daq.DaqError, "no input is called `y`; the model takes x"),
        ({}, daq.DaqError, "input `x` is missing"),
        ({"x": codes().astype(np.float64)}, TypeError, "input `x` is float64; give float32 or uint8"),
        ({"x": codes().astype(np.int64)}, daq.DaqError, "input `x` is u8, not i64"),
        ({"x": codes().astype(">f4")}, TypeError, "give float32 or uint8"),
        ({"x": [1, 2]}, TypeError, "not list"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_wrong_inputs(model, given, error, text):
    with pytest.raises(error) as e:
        model.predict(given)
    assert text in str(e.value)


def test_wrong_models(tmp_path):
    whole = Path(os.environ["MODEL"]).read_bytes()
    for data, text in [(b"", ""), (whole[:-1], "cut short"), (b"\xa5" * 1000, "model")]:
        with pytest.raises(daq.DaqError) as e:
            daq.Model(data)
        assert text in str(e.value)
    with pytest.raises(daq.DaqError, match="none.daq"):
        daq.Model(tmp_path / "none.daq")
    with pytest.raises(TypeError, match="path, bytes"):
        daq.Model(5)
    with pytest.raises(ValueError, match="1 to 256"):
        daq.Model(whole, threads=0)
    with pytest.raises(ValueError, match="unknown backend `gpu`"):
        daq.Model(whole, backend="gpu")
    with pytest.raises(ValueError, match="unknown preference `fast`"):
        daq.Model(whole, preference="fast")
    with pytest.raises(daq.DaqError, match="built without NNAPI"):
        daq.Model(whole, backend="auto", preference="low-power", allow_fp16=True)
    command = [os.environ["DAQ"], "bench", os.environ["MODEL"], "--backend", "nnapi"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 2 and "built without NNAPI" in said.stderr
    with pytest.raises(TypeError, match="float32 or uint8"):
        daq.Model(whole).predict(codes(), dtype=np.int32)


def test_many_threads(model):
    """8 threads on one model for DAQ_TEST_SECONDS (1)."""
    expected = [model.predict(codes(i)) for i in range(8)]
    wrong = []
    end = time.monotonic() + float(os.environ.get("DAQ_TEST_SECONDS", 1))

    def work(i):
        while time.monotonic() < end:
            for name, array in model.predict(codes(i)).items():
                if not np.array_equal(array, expected[i][name]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_quantize_is_that_of_the_command(tmp_path):
    """The same table, byte for byte, and the same outputs as with `daq quantize` and `daq convert`."""
    command = [os.environ["DAQ"], "quantize", "-q", "--image_dir", EXAMPLE / "pictures", "--samples", "6"]
    command += ["--preprocess", EXAMPLE / "preprocess.toml", "-o", tmp_path / "q.onnx", FLOAT]
    subprocess.run(command + [tmp_path / "table.txt"], check=True)
    convert = [os.environ["DAQ"], "convert", "-q", tmp_path / "q.onnx", tmp_path / "q.daq"]
    subprocess.run(convert, check=True)

    seen = []
    how = dict(preprocess=EXAMPLE / "preprocess.toml", samples=6, table=tmp_path / "t.txt")
    how["progress"] = lambda *step: seen.append(step)
    summary = daq.quantize(FLOAT, EXAMPLE / "pictures", tmp_path / "p.onnx", **how)
    assert (tmp_path / "t.txt").read_bytes() == (tmp_path / "table.txt").read_bytes()
    assert summary["samples"] == 6 and summary["skipped"] == []
    assert summary["operators"] == summary["operators_8bit"] == 178
    assert sorted(s for s in seen if s[0] == "calibrating") == [("calibrating", i, 6) for i in range(7)]

    daq.convert(tmp_path / "p.onnx", tmp_path / "c.daq", table=tmp_path / "t.txt")
    a, b = daq.Model(tmp_path / "c.daq"), daq.Model(tmp_path / "q.daq")
    for seed in range(3):
        (x,), (y,) = a.predict(codes(seed)).values(), b.predict(codes(seed)).values()
        assert np.array_equal(x, y)


def test_quantize_takes_arrays_readers_and_bytes(tmp_path):
    rng = np.random.default_rng(1)
    samples = [rng.uniform(-1, 1, SHAPE).astype(np.float32) for _ in range(3)]

    class Reader:
        left = list(samples)

        def get_next(self):
            return {"x": self.left.pop(0)} if self.left else None

    ways = {
        "a": iter(samples),
        "b": [{"x": s} for s in samples],
        "c": (s[0] for s in samples),
        "d": Reader(),
    }
    made = set()
    for name, images in ways.items():
        out = tmp_path / f"{name}.daq"
        assert daq.quantize(FLOAT.read_bytes(), images, out)["samples"] == 3
        made.add(out.read_bytes())
    assert len(made) == 1
    (a,) = daq.Model(out).predict(samples[0]).values()
    (b,) = daq.Model(FLOAT).predict(samples[0]).values()
    assert np.abs(a - b).max() < 0.1


def test_inputs_in_two_parts(tmp_path):
    rng = np.random.default_rng(1)
    samples = [rng.uniform(-1, 1, SHAPE).astype(np.float32) for _ in range(3)]
    summaries = [
        daq.quantize(FLOAT, samples, tmp_path / f"{name}.daq", two_parts=parts)
        for name, parts in [("a", []), ("b", ["Conv@5"])]
    ]
    # A second product, and between the two what parts the input and adds: Clip, Sub, Add.
    one, two = summaries
    assert two["operators"] - one["operators"] == 4
    more = {name for name, _ in two["float_operators"]} - {name for name, _ in one["float_operators"]}
    assert more >= {"Conv@5_near", "Conv@5_beyond", "Conv@5_sum"}
    (a,), (b,) = (daq.Model(m).predict(samples[0]).values() for m in (FLOAT, tmp_path / "b.daq"))
    assert np.abs(a - b).max() < 0.1


def test_a_target(tmp_path):
    rng = np.random.default_rng(1)
    samples = [rng.uniform(-1, 1, SHAPE).astype(np.float32) for _ in range(6)]
    out = tmp_path / "o.daq"
    first = daq.quantize(FLOAT, samples, out, target_sqnr=1)["target"]
    assert first["reached"] and first["sqnr_db"] >= 1 and first["samples"] == 2
    assert (first["exclude"], first["calibration"]) == ([], "best")
    # More than the model has to give: the first attempt is all that the time allows.
    second = daq.quantize(FLOAT, samples, out, target_sqnr=300, time_budget=0)["target"]
    assert not second["reached"] and second["sqnr_db"] == first["sqnr_db"]
    assert "target" not in daq.quantize(FLOAT, samples, out)


def test_quantize_says_what_is_wrong(tmp_path):
    out = tmp_path / "o.daq"
    sample = np.zeros(SHAPE, np.float32)

    def fails(error, text, *args, **how):
        with pytest.raises(error) as e:
            daq.quantize(*args, **how)
        assert text in str(e.value)
        assert not out.exists()

    fails(daq.DaqError, "none of the 0 samples", FLOAT, [], out)
    fails(daq.DaqError, "has shape [5]", FLOAT, [np.zeros(5, np.float32)], out)
    fails(daq.DaqError, "no array for input `x`", FLOAT, [{"y": sample}], out)
    fails(daq.DaqError, "NaN", FLOAT, [sample * np.nan], out)
    fails(daq.DaqError, "nowhere", FLOAT, tmp_path / "nowhere", out)
    fails(daq.DaqError, "exclude", FLOAT, [sample], out, exclude=["no such node"])
    fails(daq.DaqError, "two-parts", FLOAT, [sample], out, two_parts=["no such node"])
    fails(ValueError, "minmax", FLOAT, [sample], out, calibration="greatest")
    fails(daq.DaqError, "at least 6 samples", FLOAT, [sample], out, target_sqnr=20)
    fails(ValueError, "one of them", FLOAT, [sample], out, target_sqnr=20, target_agreement=0.9)
    fails(ValueError, "no share", FLOAT, [sample], out, target_agreement=98)
    fails(ValueError, "needs a target", FLOAT, [sample], out, time_budget=5)
    fails(ValueError, "no time", FLOAT, [sample], out, target_sqnr=20, time_budget=-1)
    fails(ValueError, "activation-bias", FLOAT, [sample], out, recovery="equalise")
    fails(ValueError, ".daq or .onnx", FLOAT, [sample], tmp_path / "o.bin")
    fails(daq.DaqError, "is a .daq file", os.environ["MODEL"], [sample], out)
    fails(TypeError, "iterable", FLOAT, 5, out)

    def stop(stage, done, total):
        raise KeyError("from the callback")

    fails(KeyError, "from the callback", FLOAT, [sample], out, progress=stop)


def test_convert_gives_pictures_rows_first(tmp_path):
    daq.convert(os.environ["MODEL"], tmp_path / "n.daq", input_layout="nhwc")
    rows = daq.Model(tmp_path / "n.daq")
    assert rows.inputs[0].shape == [1, 48, 192, 3] and rows.inputs[0].layout == "channels_last"
    (a,) = rows.predict(np.ascontiguousarray(codes().transpose(0, 2, 3, 1))).values()
    (b,) = daq.Model(os.environ["MODEL"]).predict(codes()).values()
    assert np.array_equal(a, b)


def test_command(tmp_path):
    """The console script is the command: the same output, the same exit codes."""
    script = Path(sys.executable).parent / "daq"

    def both(*args):
        ran = [subprocess.run([c, *args], capture_output=True, cwd=tmp_path) for c in (script, os.environ["DAQ"])]
        assert [r.returncode for r in ran][:1] == [r.returncode for r in ran][1:]
        assert (ran[0].stdout, ran[0].stderr) == (ran[1].stdout, ran[1].stderr)
        return ran[0]

    assert both("inspect", os.environ["MODEL"]).returncode == 0
    assert both("inspect", "none.daq").returncode == 1
    assert b"unexpected argument" in both("run", "--no-such-flag").stderr
