#!/bin/bash
# The Debian packages as they are installed: lintian, the unit before systemd-analyze, and in a Debian of its own (debootstrap)
# install, run, upgrade over a changed configuration, remove and purge. Root; skips what cannot be done here, and says so.
#
#     tools/test_deb.sh PACKAGE.deb [PACKAGE.deb]      of which that of this machine's architecture is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || { echo "test-deb: name the packages" >&2; exit 2; }
# shellcheck source=tools/skip.sh
. tools/skip.sh
fail() {
    echo "test-deb: FAILED: $*" >&2
    exit 1
}

if command -v lintian >/dev/null; then
    lintian --fail-on error --allow-root "$@" || fail "lintian"
    echo "test-deb: lintian finds no error"
else
    skip lintian "lintian is not installed (apt-get install lintian)"
fi

if command -v systemd-analyze >/dev/null; then
    # The threshold is in tenths: 2.0.
    systemd-analyze security --offline=true --threshold=20 packaging/afterimage.service >/dev/null || fail "the unit is exposed more than 2.0"
    echo "test-deb: the unit is exposed 2.0 at most"
else
    skip systemd "systemd-analyze is not installed (apt-get install systemd)"
fi

own=
for package; do
    [ "$(dpkg-deb -f "$package" Architecture)" != "$(dpkg --print-architecture)" ] || own=$package
done
[ -n "$own" ] || { skip package "none of the packages is for this machine: installed is none"; exit 0; }
[ "$(id -u)" = 0 ] || { skip root "installing needs root"; exit 0; }
command -v debootstrap >/dev/null || { skip debootstrap "debootstrap is not installed (apt-get install debootstrap)"; exit 0; }

work=$(mktemp -d)
trap 'umount -q "$work/debian/proc" 2>/dev/null || true; rm -rf "$work"' EXIT
debian=$work/debian
# The mirror of this machine, whatever it is.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
debootstrap --variant=minbase --include=adduser,init-system-helpers,libstdc++6,systemd "$suite" "$debian" "$mirror" >"$work/log" 2>&1 ||
    { skip debootstrap "debootstrap could not make a Debian: $(tail -n 1 "$work/log")"; exit 0; }
mount -t proc proc "$debian/proc"
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive chroot "$debian" "$@"; }
# What is there, without what other programs write on the way.
listing() { (cd "$debian" && find . -xdev \( -path ./proc -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache/ldconfig -o -path ./run \) -prune -o -print | LC_ALL=C sort); }

listing >"$work/before"
cp "$own" "$debian/tmp/afterimage.deb"
inside dpkg -i /tmp/afterimage.deb >"$work/log" 2>&1 || fail "install: $(cat "$work/log")"
inside getent passwd afterimage >/dev/null || fail "there is no user afterimage"
[ "$(inside stat -c '%a %U:%G' /etc/afterimage/camera.env)" = "640 root:afterimage" ] || fail "camera.env can be read by everybody"
inside afterimage --version
inside afterimage check --config /etc/afterimage/afterimage.toml >/dev/null || fail "the packaged configuration"
inside afterimage doctor >"$work/log" || { cat "$work/log"; fail "doctor"; }
grep -q /usr/lib/afterimage/libonnxruntime.so "$work/log" || { cat "$work/log"; fail "its own ONNX Runtime is not found"; }
inside systemd-analyze verify --man=no /lib/systemd/system/afterimage.service 2>&1 | tee "$work/log"
! grep -q afterimage "$work/log" || fail "systemd-analyze verify"
# The main job, as the service's user, with what the package brings and no camera.
inside install -d -o afterimage -g afterimage /var/lib/afterimage /run/afterimage
inside su -s /bin/sh afterimage -c '/usr/bin/afterimage learn --config /etc/afterimage/afterimage.toml --set metrics.listen= \
    --source "pattern://1?frames=60&segments=6&width=96&height=96" \
    --encoder /usr/share/afterimage/models/moco-mobilenetv2-int8.onnx --out /var/lib/afterimage/run' >/dev/null 2>"$work/log" ||
    { cat "$work/log"; fail "learn as the user afterimage"; }
inside test -s /var/lib/afterimage/run/embeddings/0000.npy || fail "no embeddings were written"

echo "# changed by hand" >>"$debian/etc/afterimage/camera.env"
inside dpkg -i /tmp/afterimage.deb >"$work/log" 2>&1 || fail "upgrade: $(cat "$work/log")"
grep -q "changed by hand" "$debian/etc/afterimage/camera.env" || fail "an upgrade overwrites the configuration"

inside dpkg -r afterimage >"$work/log" 2>&1 || fail "remove: $(cat "$work/log")"
[ ! -e "$debian/usr/bin/afterimage" ] || fail "the program is there after the removal"
[ -e "$debian/etc/afterimage/camera.env" ] || fail "a removal without purge takes the configuration"
[ -e "$debian/var/lib/afterimage/run/journal.jsonl" ] || fail "a removal without purge takes what was learned"
inside dpkg -P afterimage >"$work/log" 2>&1 || fail "purge: $(cat "$work/log")"
rm -rf "$debian/run/afterimage"
listing >"$work/after"
# The copies of the lists of users that adduser keeps are the system's.
left=$(diff "$work/before" "$work/after" | grep '^[<>]' | grep -v -E '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$' || true)
[ -z "$left" ] || fail "a purge leaves a difference:
$left"
echo "test-deb: installed, run, upgraded, removed and purged in Debian $suite"
