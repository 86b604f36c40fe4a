#!/bin/sh
# Compiles the program without features, with each of them alone, and with all of them: tools/check_features.sh
set -eu
cd "$(dirname "$0")/.."
check() {
    echo "== cargo check $*"
    cargo check --locked --quiet "$@"
}
check --no-default-features
metadata=$(cargo metadata --format-version 1 --no-deps --locked)
features=$(printf %s "$metadata" | python3 -c '
import json, sys
[package] = [p for p in json.load(sys.stdin)["packages"] if p["name"] == "afterimage"]
print(*sorted(set(package["features"]) - {"default"}))')
for feature in $features; do
    check --no-default-features --features "$feature"
done
check --all-features --all-targets
