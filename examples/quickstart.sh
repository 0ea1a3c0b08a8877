#!/bin/sh
# Quantizes the example model, converts it, and compares it with the float original.
# Usage: examples/quickstart.sh [FOLDER FOR THE RESULTS, default target/quickstart]
set -eu
cd "$(dirname "$0")/.."
out=${1:-target/quickstart}
example=examples/textlines
mkdir -p "$out"

cargo build --release --package daq-cli
daq() {
    echo
    echo "\$ daq $*"
    "${CARGO_TARGET_DIR:-target}/release/daq" "$@"
}

daq quantize --image_dir $example/pictures --preprocess $example/preprocess.toml \
    --output "$out/quant-textlines.onnx" $example/ppocr_cls_static_48x192.onnx "$out/table.txt"
daq convert "$out/quant-textlines.onnx" "$out/textlines.daq" "$out/table.txt" \
    --labels $example/classes.txt
daq eval $example/ppocr_cls_static_48x192.onnx --images $example/pictures \
    --preprocess $example/preprocess.toml
daq eval "$out/textlines.daq" --images $example/pictures \
    --reference $example/ppocr_cls_static_48x192.onnx
daq run "$out/textlines.daq" $example/pictures/0001.jpg
