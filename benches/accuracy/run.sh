#!/bin/sh
# Measures daq, onnxruntime and NNCF on the same pictures; see run.py. Extra arguments go to run.py.
set -e
cd "$(dirname "$0")/../.."
cargo build --release -p daq-cli
venv=target/accuracy/venv
[ -d "$venv" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet onnx onnxruntime nncf numpy pillow
exec "$venv/bin/python" benches/accuracy/run.py "$@"
