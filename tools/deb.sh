#!/bin/bash
# The Debian package: target/deb/afterimage_VERSION_ARCH.deb
#
#     tools/deb.sh [amd64|arm64]        without any: that of this machine
#
# Holds the program, the CPU build of ONNX Runtime (which Debian has not), the bundled models, a systemd unit, the manual page
# and completions. Needs dpkg-deb; for the other architecture what tools/cross.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$(dpkg --print-architecture)
arch=${1:-$here}
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*)
    echo "deb: $arch is not known; there are amd64 and arm64" >&2
    exit 2
    ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

cargo build --release --locked
program=target/release/afterimage
strip=strip
if [ "$arch" != "$here" ]; then
    tools/cross.sh build --bin afterimage
    program=target/cross/$machine-unknown-linux-gnu/release/afterimage
    strip=$machine-linux-gnu-strip
fi
own=target/release/afterimage
XDG_CACHE_HOME=$PWD/target/deb tools/fetch_onnxruntime.sh --machine "$machine" >&2
runtime=target/deb/afterimage/onnxruntime-$machine

root=target/deb/$arch
rm -rf "$root"
umask 022
share=$root/usr/share
doc=$share/doc/afterimage
install -D -m 755 "$program" "$root/usr/bin/afterimage"
install -D -m 644 "$runtime/libonnxruntime.so" "$root/usr/lib/afterimage/libonnxruntime.so"
"$strip" --strip-unneeded "$root/usr/lib/afterimage/libonnxruntime.so"
install -D -m 644 -t "$share/afterimage/models" models/*.onnx models/*.toml
install -D -m 644 packaging/afterimage.service "$root/lib/systemd/system/afterimage.service"
install -D -m 644 -t "$root/etc/afterimage" packaging/afterimage.toml
# Addresses of cameras have passwords in them: for root (systemd reads it) and the group of the service (see postinst).
install -D -m 640 -t "$root/etc/afterimage" packaging/camera.env
install -D -m 644 packaging/lintian-overrides "$share/lintian/overrides/afterimage"
install -D -m 644 -t "$doc/examples" configs/*.toml packaging/jetson.conf
install -D -m 644 -t "$doc" docs/*.md docs/*.png README.md "$runtime/ThirdPartyNotices.txt"
install -D -m 644 -t "$doc/design" docs/design/*.md
gzip -9n "$doc/ThirdPartyNotices.txt"
{
    printf 'afterimage (%s) stable; urgency=medium\n\n  * See CHANGELOG.md.\n\n' "$version"
    printf ' -- The Afterimage authors <authors@afterimage.example>  %s\n' "$(git log -1 --format=%cD 2>/dev/null || date -R)"
} | gzip -9n >"$doc/changelog.gz"
install -D -m 644 CHANGELOG.md "$doc/NEWS.md"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
    printf 'Upstream-Name: afterimage\n\nFiles: *\nCopyright: 2026 The Afterimage authors\nLicense: MIT or Apache-2.0\n'
    printf ' Apache-2.0: /usr/share/common-licenses/Apache-2.0. MIT:\n .\n'
    sed '1,2d; s/^$/./; s/^/ /' LICENSE-MIT
    printf '\nFiles: usr/lib/afterimage/libonnxruntime.so\nCopyright: Microsoft Corporation\nLicense: Expat\n'
    printf ' As MIT above; what it holds of others is in ThirdPartyNotices.txt.gz.\n'
    printf '\nFiles: usr/share/afterimage/models/*mobilenetv2*\nCopyright: see the cards beside the models\nLicense: Expat-models\n'
    sed 's/^$/./; s/^/ /' models/mobilenetv2.LICENSE.txt
} >"$doc/copyright"
man=$share/man/man1
mkdir -p "$man" "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
"$own" man | gzip -9n >"$man/afterimage.1.gz"
"$own" completions bash >"$share/bash-completion/completions/afterimage"
"$own" completions zsh >"$share/zsh/vendor-completions/_afterimage"
"$own" completions fish >"$share/fish/vendor_completions.d/afterimage.fish"

# The newest symbols of glibc that program and library ask for.
glibc=$(readelf -V "$root/usr/bin/afterimage" "$root/usr/lib/afterimage/libonnxruntime.so" |
    grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
mkdir -p "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: afterimage
Version: $version
Architecture: $arch
Maintainer: The Afterimage authors <authors@afterimage.example>
Installed-Size: $(du -k -s --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, libstdc++6, adduser, init-system-helpers (>= 1.54~)
Recommends: ffmpeg | gstreamer1.0-tools
Suggests: mosquitto, prometheus
Section: video
Priority: optional
Description: on-device learning runtime for edge cameras
 Turns every frame of a camera into an embedding with a frozen image
 encoder (ONNX), and all the while adapts a small projection head to what
 this camera sees, without labels and without an image leaving the board.
 A head that does not win on held-out frames is never used.
 .
 Brings the CPU build of ONNX Runtime; others (CUDA, TensorRT) are named in
 the configuration.
CONTROL
printf '/etc/afterimage/afterimage.toml\n/etc/afterimage/camera.env\n' >"$root/DEBIAN/conffiles"
install -m 755 packaging/postinst packaging/prerm packaging/postrm "$root/DEBIAN"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
package=target/deb/afterimage_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >&2
echo "$package"
