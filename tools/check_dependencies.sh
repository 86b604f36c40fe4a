#!/bin/sh
# Licences, sources and versions of all dependencies against deny.toml: tools/check_dependencies.sh
#
# Advisories need the network and are checked where there is one: cargo deny check advisories
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/skip.sh
. tools/skip.sh
if ! command -v cargo-deny >/dev/null; then
    skip cargo-deny "cargo-deny is not installed (cargo install cargo-deny --locked)"
    exit 0
fi
cargo deny --workspace --locked check bans licenses sources
