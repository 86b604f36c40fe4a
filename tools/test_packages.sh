#!/bin/sh
# Installs what some tests need and skip without: an MQTT broker (mosquitto), its reader, and openssl. Debian, Ubuntu; root.
set -eu
missing=
[ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v openssl >/dev/null || missing="$missing openssl"
[ -n "$missing" ] || exit 0
echo "test packages: installing$missing"
apt-get update -q
# shellcheck disable=SC2086 # names, one a word
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
