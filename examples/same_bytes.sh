#!/bin/sh
# Runs a model in each language, in each of the four ways to predict, and prints one line
# `LANGUAGE PREDICT SHA256` of the output's bytes for each. Fails where they do not agree.
#
# Usage: examples/same_bytes.sh [--time RUNS] MODEL.daq INPUT.npy
#   --time: print instead `LANGUAGE PREDICT MICROSECONDS OVER_RUST`, the least of 5 times RUNS runs on one
#   thread, the languages taking turns; and for `c-pairs` and `c++-pairs` the mean of 20 processes, with its
#   standard error: the median of RUNS / 4 pairs of a predict from Rust and one from there, by turns in one process.
#   INPUT.npy holds float32 or uint8 for the model's one input, in the model's shape.
# C and C++ take part where DAQ_PREFIX (default target/bindings/prefix) has the installed library,
# Java where DAQ_JAR (default target/java/daq-VERSION.jar) is the jar, Python where DAQ_PYTHON (default
# target/bindings/venv/bin/python) has the package.
set -eu
runs=
if [ "${1:-}" = --time ] && [ $# -eq 4 ]; then
    runs=$2
    shift 2
fi
if [ $# -ne 2 ]; then
    echo "usage: examples/same_bytes.sh [--time RUNS] MODEL.daq INPUT.npy" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
prefix=${DAQ_PREFIX:-$target/bindings/prefix}
jar=${DAQ_JAR:-$(ls "$target"/java/daq-*.jar 2> /dev/null | tail -n 1)}
python=${DAQ_PYTHON:-$target/bindings/venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$1
export LC_ALL=C

(cd "$here" && cargo build --quiet --release --package daq-cli --bin daq &&
    cargo build --quiet --release --package daq-examples --bin raw)
rust=$target/release/raw

# An .npy file is a header, whose length is at byte 8, and the elements.
header_length() {
    echo $(($(od -An -tu2 -j8 -N2 "$1") + 10))
}
elements() {
    tail -c "+$(($(header_length "$1") + 1))" "$1"
}

# The input as real numbers and as codes, raw and as .npy.
elements "$2" > "$work/given"
head -c "$(header_length "$2")" "$2" > "$work/header"
case $(cat "$work/header") in
*"'<f4'"*)
    cp "$work/given" "$work/in.f32"
    "$rust" "$model" code "$work/given" "$work/in.u8"
    ;;
*"'|u1'"*)
    cp "$work/given" "$work/in.u8"
    "$rust" "$model" real "$work/given" "$work/in.f32"
    ;;
*)
    echo "error: $2 holds neither float32 nor uint8" >&2
    exit 1
    ;;
esac
sed "s/'|u1'/'<f4'/" "$work/header" | cat - "$work/in.f32" > "$work/in.f32.npy"
sed "s/'<f4'/'|u1'/" "$work/header" | cat - "$work/in.u8" > "$work/in.u8.npy"

# The daq command writes an .npz file, which is a zip of .npy files in the order of the outputs.
command_line() {
    flags=
    [ "$2" = f32 ] || flags="--quant-input"
    [ "$3" = f32 ] || flags="$flags --quant-output"
    # shellcheck disable=SC2086
    "$target/release/daq" run -q "$1" "$4.npy" $flags -o "$work/out.npz" > "$work/said"
    : > "$5"
    unzip -Z1 "$work/out.npz" | while read -r name; do
        unzip -p "$work/out.npz" "$name" > "$work/array"
        elements "$work/array" >> "$5"
    done
    rm "$work/out.npz"
}

languages=rust
if command -v unzip > "$work/said"; then
    languages="cli rust"
else
    echo "SKIPPED: cli, unzip is missing" >&2
fi
if [ -e "$prefix/include/daq.h" ]; then
    cc -std=c99 -O2 -D_POSIX_C_SOURCE=200809L "$here/examples/same_bytes/raw.c" -o "$work/c" \
        -I"$prefix/include" -L"$prefix/lib" -ldaq -Wl,-rpath,"$prefix/lib"
    c++ -std=c++17 -O2 "$here/examples/same_bytes/raw.cpp" -o "$work/cpp" \
        -I"$prefix/include" -L"$prefix/lib" -ldaq -Wl,-rpath,"$prefix/lib"
    c++ -std=c++17 -O2 -shared -fPIC "$here/examples/same_bytes/pairs.cpp" -o "$work/pairs.so" \
        -I"$prefix/include" -L"$prefix/lib" -ldaq -Wl,-rpath,"$prefix/lib"
    languages="$languages c c++"
else
    echo "SKIPPED: c and c++, $prefix has no daq; run bindings/c/install.sh $prefix" >&2
fi
if [ -e "$jar" ] && command -v javac > "$work/said"; then
    javac -cp "$jar" -d "$work" "$here/examples/same_bytes/Raw.java"
    languages="$languages java"
else
    echo "SKIPPED: java, there is no jar or no JDK; run bindings/java/build.sh" >&2
fi
if "$python" -c 'import daq' 2> "$work/said"; then
    languages="$languages python"
else
    echo "SKIPPED: python, $python cannot import daq; run pip install bindings/python" >&2
fi

one() {
    language=$1
    shift
    case $language in
    cli) command_line "$@" ;;
    rust) "$rust" "$@" ;;
    c) "$work/c" "$@" ;;
    c++) "$work/cpp" "$@" ;;
    java) java -cp "$jar:$work" Raw "$@" ;;
    java-direct) java -cp "$jar:$work" Raw "$@" direct ;;
    python) "$python" "$here/examples/same_bytes/raw.py" "$@" ;;
    esac
}

if [ -n "$runs" ]; then
    case $languages in *java*) languages="$languages java-direct" ;; esac
    for types in "f32 f32" "f32 u8" "u8 f32" "u8 u8"; do
        in=${types% *} out=${types#* }
        for round in 1 2 3 4 5; do
            for language in ${languages#cli }; do
                time=$(one "$language" "$model" "$in" "$out" "$work/in.$in" "$work/out" "$runs")
                echo "$round $language ${in}_$out $time"
            done
            # Where buffers come to lie makes a percent: several processes.
            for _ in 1 2 3 4; do
                [ -e "$prefix/include/daq.h" ] || continue
                set -- "$model" "$in" "$out" "$work/in.$in" beside
                echo "$round c-pairs ${in}_$out $("$rust" "$@" "$prefix/lib/libdaq.so" daq $((runs / 4)))"
                echo "$round c++-pairs ${in}_$out $("$rust" "$@" "$work/pairs.so" cpp $((runs / 4)))"
            done
        done
    done | awk '
        !($2 " " $3 in least) { order[++n] = $2 " " $3; least[$2 " " $3] = $4 }
        $4 < least[$2 " " $3] { least[$2 " " $3] = $4 }
        NF == 5 { sum[$2 " " $3] += $5; squares[$2 " " $3] += $5 * $5; count[$2 " " $3]++ }
        END {
            for (i = 1; i <= n; i++) {
                split(order[i], of, " ")
                rust = least["rust " of[2]]
                printf "%s %.1f", order[i], least[order[i]]
                if (m = count[order[i]]) {
                    mean = sum[order[i]] / m
                    error = sqrt((squares[order[i]] / m - mean * mean) / (m - 1))
                    printf " %+.1f%% +-%.1f\n", mean, error
                } else {
                    printf " %+.1f%%\n", 100 * (least[order[i]] / rust - 1)
                }
            }
        }'
    exit
fi

for types in "f32 f32" "f32 u8" "u8 f32" "u8 u8"; do
    in=${types% *} out=${types#* }
    first=
    for language in $languages; do
        rm -f "$work/out"
        one "$language" "$model" "$in" "$out" "$work/in.$in" "$work/out"
        sum=$(sha256sum < "$work/out")
        sum=${sum%% *}
        echo "$language ${in}_$out $sum"
        if [ "${first:=$sum}" != "$sum" ]; then
            echo "error: $language gives other bytes" >&2
            exit 1
        fi
    done
done
