#!/bin/bash
# The tests of live cameras (tests/camera_vm.rs, tests/camera_loopback.rs) in a virtual machine with a camera, one after
# the other, or the part that is named (vivid, loopback). Skips where there can be none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/skip.sh
. tools/skip.sh
give_up() {
    skip camera "$1"
    exit 0
}
[ "$(uname -sm)" = "Linux x86_64" ] || give_up "the virtual machine is for Linux on x86-64"
[ "$(id -u)" = 0 ] || give_up "it needs root, for the virtual machine's view of this one"
command -v apt-get >/dev/null || give_up "qemu and a kernel are fetched with apt-get, which is not here"
cargo build --release --locked
failed=0
# camera, file of tests, parameters of the module
part() {
    tools/camera_vm/run.sh --cam "$1" --prepare || { skip camera "the virtual machine with $1 cannot be made ready" && return 0 || exit 1; }
    local test
    test=$(cargo test --release --locked --test "$2" --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*'"$2"'-[^"]*\)".*/\1/p' | tail -n 1)
    export AFTERIMAGE_CAMERA_VM=$1
    CAMVM_ENV=AFTERIMAGE_CAMERA_VM tools/camera_vm/run.sh --cam "$1" --cam-args "${3:-}" --timeout 420 -- "$test" --test-threads 1 --nocapture ||
        { echo "test-camera: $1 failed ($?)"; failed=1; }
}
[ $# -gt 0 ] || set -- vivid loopback
for camera; do
    case $camera in
    vivid) part vivid camera_vm ;;
    loopback) part loopback camera_loopback exclusive_caps=0 ;; # with 1 it takes no second feeder
    *) echo "test-camera: $camera is neither vivid nor loopback" >&2; exit 2 ;;
    esac
done
exit $failed
