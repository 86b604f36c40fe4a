#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER: compiles the libraries with counters of coverage for libFuzzer, and with the checks of a debug
# build. The other crates are those of every build.
case " $* " in
*" --crate-name afterimage "*" --crate-type lib "* | *" --crate-name afterimage_learn "*" --crate-type lib "*)
    exec "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares -C overflow-checks=on -C debug-assertions=on
    ;;
*) exec "$@" ;;
esac
