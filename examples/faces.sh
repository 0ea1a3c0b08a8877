#!/bin/sh
# Quantizes a face detector with a folder of pictures and draws a box around each face of one of them, with
# the float model and with the 8-bit one; fails where these do not find as many.
# Usage: examples/faces.sh [ULTRAFACE.onnx PICTURES PICTURE OUT.png]
# The model is version-RFB-320_without_postprocessing of UltraFace (MIT), which is not part of this project:
# without arguments it is looked for in ../shared/data.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
data=$here/../shared/data
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $# in
    0)
        set -- "$data/models/ultraface-version-RFB-320_without_postprocessing.onnx" "$data/pictures/photos" \
            "$data/pictures/photos/astronaut.png" "$work/faces.png"
        if ! [ -e "$1" ]; then
            echo "SKIPPED: faces, there is no $1; give a model and pictures" >&2
            exit 0
        fi ;;
    4) ;;
    *)
        echo "usage: examples/faces.sh [ULTRAFACE.onnx PICTURES PICTURE OUT.png]" >&2
        exit 2 ;;
esac
(cd "$here" && cargo build --quiet --release --package daq-cli --bin daq)
(cd "$here" && cargo build --quiet --release --package daq-examples --bin faces)
daq=$target/release/daq
settings=$here/examples/faces/preprocess.toml
"$daq" quantize --quiet --image_dir "$2" --preprocess "$settings" "$1" "$work/table.txt" -o "$work/quant.onnx" > "$work/said"
"$daq" convert --quiet "$work/quant.onnx" "$work/faces.daq" "$work/table.txt" > "$work/said"
"$daq" convert --quiet "$1" "$work/float.daq" > "$work/said"
"$target/release/faces" "$work/float.daq" "$3" "$work/float.png" > "$work/float"
"$target/release/faces" "$work/faces.daq" "$3" "$4" > "$work/found"
sed 's/^/float: /' "$work/float"
sed 's/^/8-bit: /' "$work/found"
if [ "$(wc -l < "$work/float")" -ne "$(wc -l < "$work/found")" ]; then
    echo "error: the 8-bit model finds other faces than the float one" >&2
    exit 1
fi
