#!/bin/bash
# Cargo for 64-bit Arm Linux (Jetson, Raspberry Pi), on any machine:
#
#     tools/cross.sh [COMMAND [ARGUMENTS]]        without any: build --bin afterimage
#
# COMMAND prepare installs what is missing and builds nothing. With `cross`, where that is installed and a container engine answers; else with Debian's own cross toolchain, which is
# installed where it is missing (root). Both leave target/cross/aarch64-unknown-linux-gnu/release/afterimage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR=target/cross

fail() {
    echo "cross: $*" >&2
    exit 1
}
[ $# -gt 0 ] || set -- build --bin afterimage
command=$1
shift

engine() { docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1; }
if command -v cross >/dev/null && engine; then
    [ "$command" != prepare ] || exit 0
    exec cross "$command" --release --locked --target "$target" "$@"
fi

command -v dpkg >/dev/null || fail "there is neither cross with a container engine (docker, podman) nor Debian's toolchain here"
missing=
for package in rustc-web:native cargo-web:native libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu:native \
    libc6-dev-arm64-cross:native libstdc++6-arm64-cross:native; do
    name=${package%:native}
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q "ok installed" || missing="$missing $name"
done
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || fail "missing:$missing; run as root: dpkg --add-architecture arm64 && apt-get update && apt-get install$missing"
    echo "cross: installing$missing" >&2
    {
        dpkg --add-architecture arm64
        apt-get update -q
        # shellcheck disable=SC2086 # names, one a word
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    } >&2 || fail "apt-get could not install$missing"
fi

[ "$command" != prepare ] || exit 0

# Debian's cargo, and none of rustup's beside it; its own home, since two versions of cargo need not agree on one.
home=$PWD/$CARGO_TARGET_DIR/cargo-home
mkdir -p "$home"
for config in "${CARGO_HOME:-$HOME/.cargo}"/config.toml; do
    [ ! -f "$config" ] || ln -sf "$config" "$home/config.toml"
done
PATH=/usr/bin:/bin CARGO_HOME=$home RUSTUP_TOOLCHAIN='' CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    exec /usr/bin/cargo "$command" --release --locked --target "$target" "$@"
