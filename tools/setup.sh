#!/bin/sh
# Installs what is missing to build, test and run Afterimage on Debian or Ubuntu, and nothing else. Run by `make setup`.
#
# Looks first, and touches neither apt nor the network when everything is there. Packages need root or sudo; without
# either, what to install is said and the exit code is 1. Rust itself is not installed: see the message.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# Rust
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
has cargo || fail "cargo is not installed; install Rust $wanted or newer with rustup, then run this again"
found=$(cargo --version | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
lowest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
[ "$lowest" = "$wanted" ] || fail "Rust $wanted or newer is needed, found cargo ${found:-without a version}; run: rustup update stable"

# The folder where ONNX Runtime is looked for, as in tools/fetch_onnxruntime.sh.
runtime=${XDG_CACHE_HOME:-${HOME:-}/.cache}/afterimage/onnxruntime/libonnxruntime.so
has_runtime() {
    { [ -n "${ORT_DYLIB_PATH:-}" ] && [ -s "$ORT_DYLIB_PATH" ]; } || [ -s "$runtime" ]
}

# Debian packages
packages=
has cc || packages="$packages gcc libc6-dev"
# libjpeg is three times as fast with its vector code, which nasm assembles; other processors need none.
[ "$(uname -m)" != x86_64 ] || has nasm || packages="$packages nasm"
has ffmpeg && has ffprobe || packages="$packages ffmpeg"
if ! has_runtime; then
    has python3 || packages="$packages python3"
    { has python3 && python3 -m pip --version >/dev/null 2>&1; } || packages="$packages python3-pip"
fi

if [ -n "$packages" ]; then
    has apt-get || fail "missing:$packages; there is no apt-get here, install them in this system's way"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif has sudo; then
        as_root=sudo
    else
        fail "missing:$packages; there is no sudo here, run as root: apt-get install$packages"
    fi
    echo "setup: installing$packages"
    $as_root apt-get update -q || fail "apt-get update failed; is there a network? Missing:$packages"
    # shellcheck disable=SC2086 # a list of names
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages ||
        fail "apt-get could not install$packages"
fi

# ONNX Runtime: the one that ORT_DYLIB_PATH names, or else one in the cache (which is left alone when it is there).
if [ -n "${ORT_DYLIB_PATH:-}" ]; then
    [ -s "$ORT_DYLIB_PATH" ] || fail "ORT_DYLIB_PATH is $ORT_DYLIB_PATH, and there is no such file; correct or unset it"
    runtime=$ORT_DYLIB_PATH
else
    tools/fetch_onnxruntime.sh >/dev/null
fi

# The crates of this machine's platform, so that everything after this works without a network.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked --target "$host" ||
    fail "the crates in Cargo.lock could not be fetched; is there a network?"

echo "setup: cargo $found, $(ffmpeg -version | sed -n '1s/ Copyright.*//p'), ONNX Runtime $runtime"
