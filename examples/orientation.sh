#!/bin/sh
# Which way up is a line of text? Runs the same model on the same frame in each language that is built
# (see bindings/test.sh), and fails where they do not say the same.
# Usage: examples/orientation.sh MODEL.daq      the model of examples/quickstart.sh
set -eu
if [ $# -ne 1 ]; then
    echo "usage: examples/orientation.sh MODEL.daq" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
prefix=${DAQ_PREFIX:-$target/bindings/prefix}
python=${DAQ_PYTHON:-$target/bindings/venv/bin/python}
jar=${DAQ_JAR:-$(ls "$target"/java/daq-*.jar 2> /dev/null | tail -n 1)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$here/examples/orientation
frame=$source/frame.ppm
first=

says() {
    language=$1
    shift
    answer=$("$@")
    echo "$language: $answer"
    if [ "${first:=$answer}" != "$answer" ]; then
        echo "error: $language says something else" >&2
        exit 1
    fi
}

(cd "$here" && cargo build --quiet --release --package daq-examples --bin orientation)
says Rust "$target/release/orientation" "$1" "$frame"
if [ -e "$prefix/include/daq.h" ]; then
    link="-I$prefix/include -L$prefix/lib -ldaq -Wl,-rpath,$prefix/lib"
    # shellcheck disable=SC2086
    cc -std=c99 -O2 "$source/main.c" -o "$work/c" $link
    # shellcheck disable=SC2086
    c++ -std=c++17 -O2 "$source/main.cpp" -o "$work/cpp" $link
    says C "$work/c" "$1" "$frame"
    says C++ "$work/cpp" "$1" "$frame"
else
    echo "SKIPPED: C and C++, $prefix has no daq; run bindings/c/install.sh $prefix" >&2
fi
if [ -e "$jar" ] && command -v javac > "$work/said"; then
    javac -cp "$jar" -d "$work" "$source/Main.java"
    says Java java -cp "$jar:$work" Main "$1" "$frame"
else
    echo "SKIPPED: Java, there is no jar or no JDK; run bindings/java/build.sh" >&2
fi
if "$python" -c 'import daq' 2> "$work/said"; then
    says Python "$python" "$source/main.py" "$1" "$frame"
else
    echo "SKIPPED: Python, $python cannot import daq; run pip install bindings/python" >&2
fi
