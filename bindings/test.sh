#!/usr/bin/env bash
# Builds, installs and tests the bindings, in target/bindings. What a missing tool prevents is a line
# that starts with SKIPPED.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/bindings
prefix=$work/prefix
mkdir -p "$work"
have() { command -v "$1" > /dev/null; }

echo "== the C header is that of the interface"
${XTASK:-cargo xtask} header

echo "== a model: the example, quantized by the daq command"
cargo build --release --package daq-cli --bin daq
daq=$target/release/daq
example=examples/textlines
"$daq" quantize -q --image_dir $example/pictures --preprocess $example/preprocess.toml --samples 4 \
    --force --output "$work/q.onnx" $example/ppocr_cls_static_48x192.onnx "$work/table.txt" > "$work/said"
"$daq" convert -q --force "$work/q.onnx" "$work/textlines.daq" "$work/table.txt" > "$work/said"

echo "== C and C++"
bindings/c/install.sh "$prefix"
if have cmake && have ctest; then
    for sanitize in OFF ON; do
        cmake -S bindings/c/tests -B "$work/cmake-$sanitize" -DCMAKE_PREFIX_PATH="$prefix" \
            -DSANITIZE=$sanitize -DMODEL="$work/textlines.daq" > "$work/said"
        grep SKIPPED "$work/said" || true
        cmake --build "$work/cmake-$sanitize" --parallel 2 > "$work/said" || { cat "$work/said"; exit 1; }
        (cd "$work/cmake-$sanitize" && ctest --output-on-failure)
    done
else
    echo "SKIPPED: the C and C++ tests, cmake is missing"
fi
if have pkg-config && have cc; then
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    # shellcheck disable=SC2046
    cc -std=c99 -Wall -Wextra -Wpedantic -Werror -D_POSIX_C_SOURCE=200809L bindings/c/tests/test.c \
        -o "$work/by-pkg-config" $(pkg-config --cflags --libs daq) -lm -Wl,-rpath,"$prefix/lib"
    "$work/by-pkg-config" "$work/textlines.daq"
else
    echo "SKIPPED: pkg-config, it or the C compiler is missing"
fi

echo "== Java"
if have javac && have mvn; then
    if MODEL=$work/textlines.daq bindings/java/build.sh > "$work/said" 2>&1; then
        # What -Xcheck:jni finds does not fail a test by itself.
        if grep -rE "(WARNING|FATAL ERROR) in native method" "$target/java/surefire-reports"; then exit 1; fi
        cat "$target"/java/surefire-reports/*.txt
    elif grep -qE "could not be resolved|Could not transfer" "$work/said"; then
        grep "ERROR" "$work/said" | head -n 1
        echo "SKIPPED: Java, Maven cannot get what it needs"
    else
        cat "$work/said"
        exit 1
    fi
else
    echo "SKIPPED: Java, javac or mvn is missing"
fi

echo "== Python"
python=$work/venv/bin/python
if have python3 && python3 -m venv "$work/venv" &&
    "$python" -m pip install --quiet --disable-pip-version-check "./bindings/python[test]"; then
    DAQ=$daq MODEL=$work/textlines.daq "$python" -m pytest -q bindings/python
else
    echo "SKIPPED: Python, it or a package that building it needs is missing"
fi

echo "== every language gives the same bytes"
# Any bytes will do as codes; those of the pictures are everywhere the same.
{
    printf '\223NUMPY\001\000\166\000'
    printf "%-117s\n" "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3, 48, 192), }"
    cat $example/pictures/*.jpg | head -c 27648
} > "$work/input.npy" || [ $? -eq 141 ]
examples/same_bytes.sh "$work/textlines.daq" "$work/input.npy"

echo "== the example in every language"
examples/orientation.sh "$work/textlines.daq"
