#!/usr/bin/env python3
"""Compares daq with other runtimes: the same models and inputs, in turns, on this machine.

    python3 benches/peers/run.py

makes a Python environment under target/ with the pinned packages, builds daq, makes every contender's models
(kept in target/peers for the next time), times them in turns, prints tables, and writes docs/peers.md and
docs/peers.svg after a whole run. Needs Python 3.11 or newer, Rust, and the models (see --models).
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
CACHE = REPO / "target" / "peers"
VENV = CACHE / "venv"

MODELS = [
    "mobilenet_v2",
    "efficientnet-lite0",
    "mobilenet_v3_large-rand",
    "squeezenet1.0-dc",
    "resnet18-rand",
    "resnet50-rand",
]
GENERATED = ("resnet18-rand", "resnet50-rand")

# The contenders beside daq: name, runtime, the file that it runs (a recipe of prepare.py, or "float").
PEERS = [
    ("onnxruntime f32", "onnxruntime", "float"),
    ("onnxruntime QDQ per tensor", "onnxruntime", "ort-qdq-u8s8-pt"),
    ("onnxruntime QDQ per channel", "onnxruntime", "ort-qdq-u8s8-pc"),
    ("onnxruntime QOperator per tensor", "onnxruntime", "ort-qop-u8s8-pt"),
    ("onnxruntime QOperator per channel", "onnxruntime", "ort-qop-u8s8-pc"),
    ("onnxruntime QDQ s8s8", "onnxruntime", "ort-qdq-s8s8-pc"),
    ("OpenVINO NNCF mixed", "openvino", "nncf-mixed"),
    ("OpenVINO NNCF performance", "openvino", "nncf-performance"),
    ("OpenVINO QDQ per tensor", "openvino", "ort-qdq-u8s8-pt"),
    ("OpenVINO QDQ per channel", "openvino", "ort-qdq-u8s8-pc"),
    ("rten QDQ", "rten", "ort-qdq-u8s8-pt"),
    ("tract QDQ", "tract", "ort-qdq-u8s8-pt"),
]
IN_RUST = ("rten", "tract")

# The peers whose whole processes are compared as well.
COLD = ("onnxruntime f32", "onnxruntime QDQ per tensor", "OpenVINO NNCF mixed", "rten QDQ")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = REPO.parent / "shared" / "data"
    parser.add_argument("--models", type=pathlib.Path, default=data / "models", help="folder of float .onnx models")
    parser.add_argument("--pictures", type=pathlib.Path, default=data / "pictures" / "imagenet-dev",
                        help="folder of pictures to calibrate with; seeded noise where there is none")
    parser.add_argument("--only", action="append", metavar="NAME", help="this model only (repeatable); any in the folder")
    parser.add_argument("--peers", metavar="WORD", help="only peers whose name contains this; onnxruntime f32 always runs")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender (20)")
    parser.add_argument("--slot", type=float, default=60, metavar="MS", help="length of a turn in milliseconds (60)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (1,2)")
    parser.add_argument("--isa", help="lower instruction set, such as avx2, for daq and OpenVINO; onnxruntime has no such switch. "
                        "The page then goes to target/peers")
    parser.add_argument("--quick", action="store_true", help="4 short turns")
    parser.add_argument("--daq-target", type=pathlib.Path, metavar="DIR", default=os.environ.get("DAQ_TARGET"),
                        help="folder with daq and examples/bench_server, built already [env: DAQ_TARGET]")
    parser.add_argument("--prepare-only", action="store_true", help="make every model, time nothing")
    parser.add_argument("--write", action="store_true", help="write docs/peers.md although not all was run")
    options = parser.parse_args()
    options.threads = [int(n) for n in options.threads.split(",")]
    if options.quick:
        options.rounds, options.slot = 4, 30
    return options


def install():
    """Makes the environment that the peers run in, and starts this program again inside of it."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = VENV / "installed.txt"
    python = VENV / "bin" / "python3"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing the peers into", VENV, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "-r", HERE / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def build():
    """Builds daq; the folder with its programs."""
    command = ["cargo", "build", "--release", "-p", "daq-cli", "-p", "daq", "--bin", "daq", "--example", "bench_server"]
    subprocess.run(command, cwd=REPO, check=True)
    return REPO / "target" / "release"


def build_peers():
    """Builds the runtimes written in Rust; the folder with their programs, or None after saying why not."""
    target = CACHE / "rust"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", HERE / "rust" / "Cargo.toml"]
    if subprocess.run(command, env=os.environ | {"CARGO_TARGET_DIR": str(target)}).returncode:
        print("rten, tract: not run, they could not be built", file=sys.stderr)
        return None
    return target / "release"


def peer_command(runtime, file, input_file, threads, rust):
    program = [rust / runtime] if runtime in IN_RUST else [sys.executable, HERE / "worker.py", runtime]
    return [*program, file, input_file, str(threads)]


def find(name, options):
    """The float model, or None after saying that it is missing."""
    if name in GENERATED:
        return CACHE / "models" / name / f"{name}.onnx"
    file = options.models / f"{name}.onnx"
    if file.exists():
        return file
    print(f"{name}: not run, no {name}.onnx in the models folder (--models)", file=sys.stderr)
    return None


def prepare(name, float_model, peers, options):
    """Every peer's file by recipe name; those that could not be made are left out, and said."""
    recipes = sorted({recipe for _, _, recipe in peers} - {"float"})
    pictures = options.pictures if options.pictures.is_dir() else "-"
    command = [sys.executable, HERE / "prepare.py", float_model, CACHE / "models" / name, pictures, *recipes]
    log = open(CACHE / "prepare.log", "a")
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=True).stdout
    files, errors = {"float": str(float_model)}, {}
    for line in said.splitlines():
        recipe, what = line.split(" ", 1)
        if recipe in recipes:
            (errors if what.startswith("error: ") else files)[recipe] = what
    return files, errors


def quantize(name, float_model, target):
    """Our own model: `daq quantize` with its defaults on the same pictures, then `daq convert`."""
    folder = CACHE / "models" / name
    daq = target / "daq"
    quantized, table, out = folder / "daq.onnx", folder / "daq.txt", folder / "model.daq"
    stamp, binary = folder / "daq.stamp", f"{daq.resolve()} {daq.stat().st_mtime_ns}"
    if not (out.exists() and stamp.exists() and stamp.read_text() == binary):
        def call(*args):
            subprocess.run([daq, "-q", *args], check=True, stdout=subprocess.DEVNULL)

        call("quantize", "--force", "--image_dir", folder / "calibration", "-o", quantized, float_model, table)
        call("convert", "--force", quantized, out, table)
        stamp.write_text(binary)
    return out


def measure(name, options, target, rust, environment):
    """Everything about one model, as it goes into the results file."""
    import measure as m

    float_model = find(name, options)
    if float_model is None:
        return None
    folder = CACHE / "models" / name
    peers = [p for p in PEERS if not options.peers or options.peers.lower() in p[0].lower() or p[2] == "float"]
    peers = [p for p in peers if rust or p[1] not in IN_RUST]
    files, errors = prepare(name, float_model, peers, options)
    ours = quantize(name, float_model, target)
    if options.prepare_only:
        return None
    input_file = folder / "input.f32"
    result = {"times": {}, "errors": {}}
    for threads in options.threads:
        commands = {}
        for peer, runtime, recipe in peers:
            if recipe in files:
                commands[peer] = peer_command(runtime, files[recipe], input_file, threads, rust)
            else:
                result["errors"][peer] = errors[recipe]
        commands["daq"] = [target / "examples" / "bench_server", ours, input_file, str(threads)]
        times = m.interleaved(commands, "onnxruntime f32", options.rounds, options.slot, environment, folder)
        result["times"][str(threads)] = {
            peer: {"min": t.min, "median": t.median, "load": t.load, "first": t.first, "runs": len(t.runs),
                   "turns": t.turns, "quiet": t.quiet_turns}
            for peer, t in times.items() if not t.error
        }
        result["errors"] |= {peer: t.error for peer, t in times.items() if t.error}
        for line in report.lines(name, threads, result["times"][str(threads)], result["errors"]):
            print(line, flush=True)
    cold = {
        "daq": [target / "daq", "run", ours, folder / "input.npy"],
        "daq in a process": [target / "examples" / "bench_server", ours, input_file, "1"],
    }
    for peer, runtime, recipe in peers:
        if peer in COLD and recipe in files:
            cold[peer] = [*peer_command(runtime, files[recipe], input_file, 1, rust), "once"]
    result["cold"] = m.cold(cold, 2 if options.quick else 9, environment)
    return result


def main():
    options = arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    install()
    global report
    import measure as m
    import report

    target = pathlib.Path(options.daq_target) if options.daq_target else build()
    rust = build_peers() if not options.peers or options.peers.lower() in "rten tract" else None
    environment = m.environment(options.isa)
    results = {"date": datetime.date.today().isoformat(), "isa": options.isa, "machine": report.machine(),
               "versions": report.versions(target), "models": {}}
    for name in options.only or MODELS:
        result = measure(name, options, target, rust, environment)
        if result:
            results["models"][name] = result
    if options.prepare_only:
        return
    whole = not (options.only or options.peers or options.quick) and options.threads == [1, 2]
    suffix = f"-{options.isa}" if options.isa else ""
    (CACHE / f"results{suffix}.json").write_text(json.dumps(results, indent=1))
    text = report.markdown(results)
    print("\n" + text)
    if options.isa or not (whole or options.write):
        (CACHE / f"peers{suffix}.md").write_text(text)
        return
    (REPO / "docs" / "peers.md").write_text(text)
    (REPO / "docs" / "peers.svg").write_text(report.chart(results))


if __name__ == "__main__":
    main()
