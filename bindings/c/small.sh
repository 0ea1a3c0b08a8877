#!/bin/sh
# Makes the archive of the profile `minimal` smaller before it is linked. Usage: bindings/c/small.sh ARCHIVE SMALL
# OBJCOPY may name another objcopy than the system's.
#
# Nothing unwinds this library, so the tables for that go. What a panic prints has addresses in place of the names of
# functions: the code that looks names up, in debug information that the library does not have, was a tenth of it. The
# standard library's way in returns at once instead, and the linker drops what nothing else reaches.
set -eu
objcopy=${OBJCOPY:-objcopy}
small=$2
[ "${small#/}" != "$small" ] || small=$PWD/$small
"$objcopy" --remove-section=.eh_frame --remove-section=.rela.eh_frame "$1" "$small"
command -v readelf > /dev/null && command -v ar > /dev/null || exit 0
way=$(readelf -SW "$small" 2> /dev/null | grep -o '\.text\.[^ ]*backtrace_rs9symbolize[^ ]*with_global[^ ]*' | sort -u)
[ "$(echo "$way" | grep -c .)" = 1 ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The instruction that returns.
case $(readelf -h "$small" 2> /dev/null | sed -n 's/^ *Machine: *//p' | head -n 1) in
*X86-64) printf '\303' > "$work/return" ;;
AArch64) printf '\300\003\137\326' > "$work/return" ;;
*) exit 0 ;;
esac
# Optimised as a whole, all of the Rust code is in the first object.
object=$(ar t "$small" 2> /dev/null | head -n 1)
(cd "$work" && ar x "$small" "$object" 2> /dev/null)
if "$objcopy" --remove-section=".rela$way" --update-section="$way=$work/return" "$work/$object" 2> /dev/null; then
    # The system's ar may have a plugin that says much of bitcode that it does not know.
    ar r "$small" "$work/$object" > /dev/null 2>&1
fi
