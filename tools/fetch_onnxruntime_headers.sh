#!/bin/sh
# Puts the C headers of ONNX Runtime where examples/c/Makefile and the tests find them:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/afterimage/onnxruntime-include/onnxruntime_c_api.h
#
# The Python packages of ONNX Runtime have no headers. The npm package com.github.asus4.onnxruntime has them, unchanged, in its
# framework for iOS (MIT licence; 150 MB are downloaded, 0.6 MB kept). Who has a release of ONNX Runtime, or Debian's
# libonnxruntime-dev, needs none of this (examples/c/README.md). Does nothing, and needs no network, when they are there already.
set -eu

# The package's own version; the headers in it are of ONNX Runtime 1.29.
package=com.github.asus4.onnxruntime@0.4.9
folder=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/afterimage/onnxruntime-include

fail() {
    echo "fetch_onnxruntime_headers: $*" >&2
    exit 1
}

if [ "$(cat "$folder/package" 2>/dev/null)" = "$package" ]; then
    echo "headers of ONNX Runtime are there: $folder"
    exit 0
fi
command -v npm >/dev/null || fail "npm is not installed (Debian, Ubuntu: apt-get install npm)"

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
(cd "$work" && npm pack --silent --cache "$work/npm" "$package" >/dev/null) || fail "cannot download $package; is there a network?"
tar -xzf "$work"/*.tgz -C "$work" --no-same-owner --strip-components=1 --wildcards 'package/LICENSE' \
    'package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers/*.h' ||
    fail "$package is not built as it was"
find "$work" \( -name '*.h' -o -name LICENSE \) -exec mv -f {} "$folder" \;
[ -s "$folder/onnxruntime_c_api.h" ] || fail "$package has no onnxruntime_c_api.h"
echo "$package" >"$folder/package"
echo "headers of ONNX Runtime: $folder"
