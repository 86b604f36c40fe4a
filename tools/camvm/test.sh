#!/bin/bash
# The tests of live cameras (tests/camera_vm.rs) in a virtual machine with a camera. Skips where there can be none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() { echo "test-camera: skipped: $*"; exit 0; }
[ "$(uname -sm)" = "Linux x86_64" ] || skip "the virtual machine is for Linux on x86-64"
[ "$(id -u)" = 0 ] || skip "it needs root, for the virtual machine's view of this one"
command -v apt-get >/dev/null || skip "qemu and a kernel are fetched with apt-get, which is not here"
tools/camvm/run.sh --cam vivid --prepare || skip "the virtual machine cannot be made ready"
test=$(cargo test --release --locked --test camera_vm --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*camera_vm-[^"]*\)".*/\1/p' | tail -n 1)
cargo build --release --locked
export AFTERIMAGE_CAMERA_VM=vivid
CAMVM_ENV=AFTERIMAGE_CAMERA_VM tools/camvm/run.sh --cam vivid --timeout "${1:-420}" -- "$test" --test-threads 1 --nocapture
