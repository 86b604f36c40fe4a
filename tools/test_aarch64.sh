#!/bin/bash
# The arm64 program under emulation (qemu-user), against the x86-64 one: unit tests of the mathematics, then tests/aarch64.rs
# (a short `learn`, `embed` with a real encoder). Debian; installs what is missing where it is root, else skips.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=tools/skip.sh
. tools/skip.sh
give_up() {
    skip aarch64 "$1"
    exit 0
}
[ "$(uname -sm)" = "Linux x86_64" ] || give_up "it compares with x86-64, and this is $(uname -sm)"
command -v apt-get >/dev/null || give_up "the toolchain and the emulator come with apt-get, which is not here"
tools/cross.sh prepare || give_up "the toolchain cannot be installed"
missing=
for package in qemu-user-static libc6:arm64 libstdc++6:arm64; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || give_up "missing:$missing (apt-get install$missing, as root)"
    dpkg --add-architecture arm64
    apt-get update -q || give_up "apt-get update fails"
    # shellcheck disable=SC2086 # names, one a word
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing || give_up "apt-get cannot install$missing"
fi

# The emulated program finds Arm's libraries where Debian has them (libc6:arm64; those of libc6-arm64-cross make threads hang).
# ONNX Runtime asks /proc/cpuinfo what processor it is on, and does not survive the answer of an x86-64 machine.
root=$PWD/target/cross/root
mkdir -p "$root/proc"
{
    for core in 0 1; do
        printf 'processor\t: %s\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\n' $core
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd07\nCPU revision\t: 0\n\n'
    done
} >"$root/proc/cpuinfo"
runner=$root/run
printf '#!/bin/sh\nexec %s -L %s "$@"\n' "$(command -v qemu-aarch64-static)" "$root" >"$runner"
chmod +x "$runner"

tools/cross.sh build --bin afterimage
library=$(tools/fetch_onnxruntime.sh --machine aarch64 | sed 's/.*: //')

echo "== unit tests of the mathematics, emulated"
tools/cross.sh test --lib --no-run --message-format json >"$root/tests.json"
sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$root/tests.json" | while read -r tests; do
    "$runner" "$tests" --test-threads 2 linalg:: objective:: optimizer:: head:: sampling:: encoder::preprocess
done | tee "$root/tests.log"
# Names of modules that are no longer there would test nothing.
passed=$(awk '/^test result: ok/ { sum += $4 } END { print sum + 0 }' "$root/tests.log")
[ "$passed" -ge 50 ] || { echo "test-aarch64: only $passed unit tests ran; are the modules named so?" >&2; exit 1; }

echo "== learn and embed, emulated, against x86-64"
program=$PWD/target/cross/aarch64-unknown-linux-gnu/release/afterimage
printf '#!/bin/sh\nexport ORT_DYLIB_PATH=%s\nexec %s %s "$@"\n' "$library" "$runner" "$program" >"$root/afterimage"
chmod +x "$root/afterimage"
AFTERIMAGE_AARCH64=$root/afterimage cargo test --release --locked --test aarch64 -- --nocapture
