# shellcheck shell=sh
# For test scripts: `. tools/skip.sh`, then `skip NEED REASON` where something cannot be tested here, as in tests/common/skip.rs.
# Returns 1, which ends a script under `set -e`, where a skip is a failure: with REQUIRE_ALL=1, unless ALLOW_SKIP (words between
# spaces) has the need.
skip() {
    line="skipped: $(basename "$0" .sh): $1: $2"
    echo "$line" >&2
    [ -z "${SKIPPED_TESTS:-}" ] || echo "$line" >>"$SKIPPED_TESTS"
    [ "${REQUIRE_ALL:-}" = 1 ] || return 0
    case " ${ALLOW_SKIP:-} " in
    *" $1 "*) ;;
    *)
        echo "REQUIRE_ALL=1 and $1 is not in ALLOW_SKIP" >&2
        return 1
        ;;
    esac
}
