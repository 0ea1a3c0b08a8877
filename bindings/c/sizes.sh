#!/bin/sh
# Prints the size of the C library for each target whose standard library is installed: the profile
# `minimal`, with that target's kernels alone, stripped. Nothing is run, and no C compiler is needed:
# rustc's own linker makes the shared library, and what it takes from the C library stays open.
# Usage: bindings/c/sizes.sh [TARGET...]
set -eu
cd "$(dirname "$0")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
lld=$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld
[ -x "$lld" ] || { echo "SKIPPED: $lld is missing" >&2 && exit 1; }
objcopy() { LD_LIBRARY_PATH=$(rustc --print sysroot)/lib "$(dirname "$lld")/rust-objcopy" "$@"; }
[ $# -gt 0 ] || set -- x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-linux-android \
    armv7-unknown-linux-gnueabihf i686-unknown-linux-gnu riscv64gc-unknown-linux-gnu wasm32-unknown-unknown
for target; do
    if ! [ -d "$(rustc --print target-libdir --target "$target" 2> /dev/null)" ]; then
        echo "| \`$target\` | SKIPPED: no standard library (\`rustup target add $target\`) |"
        continue
    fi
    folder=${CARGO_TARGET_DIR:-target}/$target
    case $target in
    wasm32-*)
        # The page's module, which exports what a page calls and not the C functions.
        RUSTFLAGS="-C target-feature=+simd128" cargo build --quiet --profile minimal --target "$target" -p daq-web
        made=$folder/minimal/daq_web.wasm
        objcopy --strip-all "$made" "$made.stripped"
        made=$made.stripped
        ;;
    *)
        cargo rustc --quiet --profile minimal --target "$target" -p daq-c --crate-type staticlib
        made=$folder/minimal/libdaq.so
        # As install.sh does.
        LD_LIBRARY_PATH=$(rustc --print sysroot)/lib OBJCOPY=$(dirname "$lld")/rust-objcopy \
            bindings/c/small.sh "$folder/minimal/libdaq_c.a" "$folder/minimal/small.a"
        "$lld" -flavor gnu -shared -o "$made" --whole-archive "$folder/minimal/small.a" --no-whole-archive \
            --gc-sections --icf=all -z pack-relative-relocs -O2 --strip-all -z relro -z now -soname libdaq.so.0 --version-script=bindings/c/daq.map
        ;;
    esac
    echo "| \`$target\` | $(wc -c < "$made") |"
done
