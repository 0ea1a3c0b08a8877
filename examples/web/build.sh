#!/usr/bin/env bash
# Puts the page and its module into target/web, and says how large the module is.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
if ! [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown)" ]; then
    echo "SKIPPED: no standard library for wasm; rustup target add wasm32-unknown-unknown"
    exit 0
fi
CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+simd128" CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo build --quiet --release -p daq-web --target wasm32-unknown-unknown
mkdir -p "$target/web"
cp examples/web/index.html examples/web/daq.js "$target/web"
cp "$target/wasm32-unknown-unknown/release/daq_web.wasm" "$target/web/daq.wasm"
echo "$target/web/daq.wasm: $(stat -c %s "$target/web/daq.wasm") bytes, $(gzip -9c "$target/web/daq.wasm" | wc -c) compressed"
