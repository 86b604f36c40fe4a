#!/bin/sh
# Runs a test command and lists at its end what it skipped; the exit code is the command's. Where SKIPPED_TESTS is set already,
# whoever set it lists what is in that file.
#
#     tools/list_skipped.sh cargo test --release
set -u
[ -z "${SKIPPED_TESTS:-}" ] || exec "$@"
SKIPPED_TESTS=$(mktemp)
export SKIPPED_TESTS
trap 'rm -f "$SKIPPED_TESTS"' EXIT
trap 'exit 1' HUP INT TERM
"$@"
code=$?
echo "== skipped: $(wc -l <"$SKIPPED_TESTS")"
sed 's/^skipped: /   /' "$SKIPPED_TESTS"
exit $code
