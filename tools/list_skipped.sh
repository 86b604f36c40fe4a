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
# A test that goes through several cases may say the same of each.
skipped=$(awk '!seen[$0]++' "$SKIPPED_TESTS")
echo "== skipped: $(printf %s "$skipped" | grep -c .)"
printf %s "${skipped:+$skipped
}" | sed 's/^skipped: /   /'
exit $code
