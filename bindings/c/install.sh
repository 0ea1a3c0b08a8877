#!/bin/sh
# Builds the C library and installs it with its headers, pkg-config file and CMake package.
# Usage: bindings/c/install.sh [--minimal] PREFIX     (DESTDIR is put before the prefix, for packagers)
#   --minimal: optimised for size but for the kernels; takes longer to build. A panic ends the process.
set -eu
profile=release
linker=
if [ "${1:-}" = --minimal ]; then
    profile=minimal
    shift
fi
if [ $# -ne 1 ]; then
    echo "usage: bindings/c/install.sh [--minimal] PREFIX" >&2
    exit 2
fi
mkdir -p "${DESTDIR:-}$1"
to=$(cd "${DESTDIR:-}$1" && pwd)
cd "$(dirname "$0")/../.."
cargo build --profile $profile --package daq-c

built=${CARGO_TARGET_DIR:-target}/$profile
# What the shared library is made of.
archive=$built/libdaq_c.a
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
mkdir -p "$to/include" "$to/lib/pkgconfig" "$to/lib/cmake/daq"
install -m 644 bindings/c/include/daq.h bindings/c/include/daq.hpp "$to/include/"
# What the static library needs of the system, as rustc says it.
system="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"
if [ "$(uname)" = Darwin ]; then
    system="-lSystem -lc -lm"
    install -m 755 "$built/libdaq_c.dylib" "$to/lib/libdaq.dylib"
else
    # Linked anew, since rustc leaves no room for versions of symbols; without debug information. For the
    # smallest library small.sh drops what it does not need, and rustc's own linker makes one of equal functions.
    if [ $profile = minimal ] && command -v objcopy > /dev/null; then
        archive=$built/libdaq_c.small.a
        bindings/c/small.sh "$built/libdaq_c.a" "$archive"
    fi
    lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld
    if [ $profile = minimal ] && [ -x "$lld/ld.lld" ]; then
        linker="-B$lld -fuse-ld=lld -Wl,--icf=all,-O2"
        # Relocations in few bytes, where the system's loader knows them.
        if getconf GNU_LIBC_VERSION 2> /dev/null | awk '{ split($2, v, "."); new = v[1] * 1000 + v[2] >= 2036 } END { exit !new }'; then
            linker="$linker,-z,pack-relative-relocs"
        fi
    fi
    # shellcheck disable=SC2086
    "${CC:-cc}" -shared $linker -o "$to/lib/libdaq.so.$version" \
        -Wl,--whole-archive "$archive" -Wl,--no-whole-archive $system \
        -Wl,--gc-sections,-s,-z,relro,-z,now -Wl,-soname,libdaq.so.0 -Wl,--version-script=bindings/c/daq.map
    ln -sf "libdaq.so.$version" "$to/lib/libdaq.so.0"
    ln -sf libdaq.so.0 "$to/lib/libdaq.so"
fi
install -m 644 "$built/libdaq_c.a" "$to/lib/libdaq.a"
for file in daqConfig.cmake daqConfigVersion.cmake; do
    sed "s/@VERSION@/$version/" "bindings/c/cmake/$file" > "$to/lib/cmake/daq/$file"
done
sed -e "s/@VERSION@/$version/" -e "s/@SYSTEM@/$system/" bindings/c/daq.pc > "$to/lib/pkgconfig/daq.pc"
size=$(wc -c < "$(readlink -f "$to/lib/libdaq.so" || echo "$to/lib/libdaq.dylib")")
echo "installed daq $version in $to; the shared library has $size bytes"
