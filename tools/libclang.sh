#!/bin/sh
# Prints the folder of libclang, which the build of the feature `camera` needs (bindgen reads a kernel header with it).
#
#     LIBCLANG_PATH=$(tools/libclang.sh) cargo build
#
# LIBCLANG_PATH, where it is set, is what is printed. Otherwise the newest one in the system's folders; Debian's
# libclang1-NN has no libclang.so, only libclang.so.1 and libclang-NN.so.1, which do as well.
set -eu

has_libclang() {
    for file in "$1"/libclang.so "$1"/libclang.so.* "$1"/libclang-*.so "$1"/libclang-*.so.*; do
        # A link that leads nowhere does not count, nor does libclang-cpp, which is another library.
        case $file in *libclang-cpp*) continue ;; esac
        [ -e "$file" ] && return 0
    done
    return 1
}

if [ -n "${LIBCLANG_PATH:-}" ]; then
    # bindgen takes the file or its folder.
    if [ -f "$LIBCLANG_PATH" ] || has_libclang "$LIBCLANG_PATH"; then
        echo "$LIBCLANG_PATH"
        exit 0
    fi
    echo "libclang: LIBCLANG_PATH is $LIBCLANG_PATH, and there is no libclang; unset it or name the right folder" >&2
    exit 1
fi

# /usr/lib/llvm-NN/lib, the highest NN first, then the folders of libraries.
for folder in $(ls -d /usr/lib/llvm-*/lib 2>/dev/null | sort -t- -k2 -rn) \
    "/usr/lib/$(uname -m)-linux-gnu" /usr/lib64 /usr/lib /usr/local/lib; do
    if has_libclang "$folder"; then
        echo "$folder"
        exit 0
    fi
done
echo "libclang: not found; install it (Debian, Ubuntu: apt-get install libclang1), set LIBCLANG_PATH to its folder," \
    "or build without USB cameras: cargo build --release --no-default-features" >&2
exit 1
