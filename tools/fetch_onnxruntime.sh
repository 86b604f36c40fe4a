#!/bin/sh
# Puts ONNX Runtime (CPU build, for this machine) where afterimage finds it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/afterimage/onnxruntime/libonnxruntime.so
#
# With --gpu: the build with CUDA and TensorRT (x86-64; 256 MB, for CUDA 13, cuDNN 9 and TensorRT 10, which are not
# brought along), beside the other in afterimage/onnxruntime-gpu. Name it with encoder.onnxruntime or ORT_DYLIB_PATH.
#
# With --machine aarch64 (or x86_64) the CPU build for another machine, in afterimage/onnxruntime-aarch64.
#
# It is taken out of the Python package onnxruntime, downloaded with pip and not installed, so it works with system
# Pythons that refuse installs and without unzip. Nothing is done, and no network needed, when it is there already.
# PYTHON names another Python than python3.
set -eu

version=1.31.1
python=${PYTHON:-python3}
folder=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/afterimage/onnxruntime
package=onnxruntime
case ${1:-} in
"") ;;
--gpu)
    folder=$folder-gpu
    package=onnxruntime-gpu
    ;;
--machine)
    other=${2:-}
    folder=$folder-$other
    ;;
*)
    echo "fetch_onnxruntime: $1 is not known; there are --gpu and --machine" >&2
    exit 2
    ;;
esac
library=$folder/libonnxruntime.so

fail() {
    echo "fetch_onnxruntime: $*" >&2
    exit 1
}

if [ -s "$library" ] && [ "$(cat "$folder/version" 2>/dev/null)" = "$version" ]; then
    echo "ONNX Runtime $version is there: $library"
    exit 0
fi

case ${other-$(uname -m)} in
x86_64 | amd64) machine=x86_64 ;;
aarch64 | arm64) machine=aarch64 ;;
*) fail "there is no ready build for ${other-$(uname -m)}; build ONNX Runtime and name it with encoder.onnxruntime" ;;
esac
[ "$package $machine" != "onnxruntime-gpu aarch64" ] ||
    fail "the ready GPU build for aarch64 has no code for Jetson boards; docs/jetson.md says which to take"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null ||
    fail "needs Python 3.6 or later as $python"
"$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip (Debian, Ubuntu: apt-get install python3-pip)"

mkdir -p "$folder"
# Unpacked beside its place and renamed, so that a half file never has the name.
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Which Python the package is for makes no difference to the library in it; so one is named that has it.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.12 \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --dest "$work" \
    "$package==$version" || fail "cannot download $package $version; is there a network? $library is as it was"

"$python" - "$work" "$version" <<'PYTHON'
import glob, os, shutil, sys, zipfile

work, version = sys.argv[1:]
[wheel] = glob.glob(os.path.join(work, "*.whl"))
with zipfile.ZipFile(wheel) as package:
    providers = [n for n in package.namelist() if n.startswith("onnxruntime/capi/libonnxruntime_providers_")]
    for name in [f"onnxruntime/capi/libonnxruntime.so.{version}", *providers]:
        own = os.path.basename(name).replace(f".so.{version}", ".so")
        with package.open(name) as source, open(os.path.join(work, own), "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    # What whoever passes the library on has to pass on with it.
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        if f"onnxruntime/{name}" in package.namelist():
            with open(os.path.join(work, name), "wb") as target:
                target.write(package.read(f"onnxruntime/{name}"))
PYTHON
chmod 755 "$work"/*.so
rm -f "$folder/version"
for provider in "$work"/libonnxruntime_providers_*.so; do
    [ ! -e "$provider" ] || mv -f "$provider" "$folder"
done
for text in LICENSE ThirdPartyNotices.txt; do
    [ ! -e "$work/$text" ] || mv -f "$work/$text" "$folder"
done
mv -f "$work/libonnxruntime.so" "$library"
echo "$version" >"$folder/version"
echo "ONNX Runtime $version for $machine: $library"
