#!/bin/sh
# Builds the native library and the jar that carries it, and runs the tests where MODEL names the
# example's model (see bindings/test.sh). Needs Rust, a JDK and Maven.
# Usage: bindings/java/build.sh [MAVEN ARGUMENTS]     the jar is then in target/java
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --package daq-java
case $(uname) in
Darwin) os=macos library=libdaq_java.dylib ;;
*) os=linux library=libdaq_java.so ;;
esac
arch=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *os\.arch = //p')
to=$target/java/native/dev/daq/native/$os-$arch
mkdir -p "$to"
# Debug information stays behind; it is most of the size.
if command -v strip > /dev/null && [ "$os" = linux ]; then
    strip -o "$to/$library" "$target/release/$library"
else
    cp "$target/release/$library" "$to/$library"
fi
[ -n "${MODEL:-}" ] || set -- -DskipTests "$@"
mvn --batch-mode --quiet --no-transfer-progress -f "$here/pom.xml" -Ddaq.native="$target/java/native" \
    -Ddaq.build="$target/java" "$@" package
echo "built $(ls "$target"/java/daq-*.jar)"
