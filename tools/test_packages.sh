#!/bin/sh
# Installs what some tests need and skip without: an MQTT broker (mosquitto), its reader, and openssl; GStreamer with an RTSP
# server (100 MB); the C headers of ONNX Runtime. Debian, Ubuntu; root.
set -eu
missing=
[ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v openssl >/dev/null || missing="$missing openssl"
for package in gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav \
    python3-gi gir1.2-gst-rtsp-server-1.0; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
# The headers come out of an npm package.
headers() { [ -n "${ONNXRUNTIME_INCLUDE:-}" ] || [ -e /usr/include/onnxruntime/onnxruntime_c_api.h ]; }
headers || command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    echo "test packages: installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # names, one a word
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi
headers || "$(dirname "$0")/fetch_onnxruntime_headers.sh"
