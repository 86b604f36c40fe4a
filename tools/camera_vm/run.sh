#!/bin/bash
# Runs a command in a small virtual machine that has a real V4L2 camera at /dev/video0.
#
#   tools/camera_vm/run.sh [options] [--] COMMAND [ARG...]
#
#   --share DIR      folder of this machine, writable in the guest at the same path (repeatable);
#                    everything else is there too, read-only under a RAM overlay
#   --cam KIND       vivid (default) | loopback | none
#   --cam-args STR   extra module parameters, such as "n_devs=2"
#   --timeout S      limit for the whole run (default 300); exit code 124 when hit
#   --mem MB (1536)  --smp N (2)  --accel auto|tcg|kvm  --fwd HOSTPORT:GUESTPORT (repeatable, 127.0.0.1 only)
#   --prepare        only download, unpack and build what is needed
#   --verbose        kernel console on stderr
#
# Exit code: the command's; 124 time limit; 125 the machine did not get as far as running it.
# Nothing is installed: qemu, a kernel, busybox and v4l-utils are fetched as Debian packages with apt-get (download only)
# and unpacked under $CAMVM_CACHE (default: afterimage/camvm in the cache folder; 0.5 GB).
set -euo pipefail

CACHE=${CAMVM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/afterimage/camvm}
CAM=vivid CAMARGS= LIMIT=300 MEM=1536 SMP=2 ACCEL=auto VERBOSE=0 PREPARE=0
SHARES=() FWDS=()
die() { echo "camvm: $*" >&2; exit 125; }
log() { [ "$VERBOSE" = 0 ] || echo "camvm: $*" >&2; }
while [ $# -gt 0 ]; do
  case $1 in
    --share) SHARES+=("$(realpath "$2")"); shift 2;;
    --cam) CAM=$2; shift 2;;
    --cam-args) CAMARGS=$2; shift 2;;
    --timeout) LIMIT=$2; shift 2;;
    --mem) MEM=$2; shift 2;;
    --smp) SMP=$2; shift 2;;
    --accel) ACCEL=$2; shift 2;;
    --fwd) FWDS+=("$2"); shift 2;;
    --verbose) VERBOSE=1; shift;;
    --prepare) PREPARE=1; shift;;
    --) shift; break;;
    -*) die "unknown option $1";;
    *) break;;
  esac
done
[ "$PREPARE" = 1 ] || [ $# -gt 0 ] || die "no command"
[ "$(id -u)" = 0 ] || die "needs root (9p share of /, apt)"

# ---------------------------------------------------------------- what it needs, once
mkdir -p "$CACHE"; CACHE=$(realpath "$CACHE")
exec 9>"$CACHE/.lock"; flock 9
APT=(apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root -o Acquire::Retries=3)
updated=0
apt_update() { [ $updated = 1 ] || { log "apt-get update"; "${APT[@]}" update >&2 || true; updated=1; }; }
dl() { # dl DIR PKG...: the named .debs themselves, no dependencies
  local d=$1; shift; mkdir -p "$d"
  (cd "$d" && "${APT[@]}" download "$@" >&2) || { apt_update; (cd "$d" && "${APT[@]}" download "$@" >&2); } || die "cannot download $*"
}
unpack() { local d=$1 f; shift; mkdir -p "$d"; for f in "$@"; do dpkg-deb --fsys-tarfile "$f" | tar -x -C "$d"; done; }

if [ ! -e "$CACHE/qemu.ok" ]; then
  log "fetching qemu"
  rm -rf "$CACHE/qemu" "$CACHE/dl"; mkdir -p "$CACHE/qemu" "$CACHE/dl/partial"
  q() { "${APT[@]}" install -y -d --no-install-recommends -o Dir::Cache::archives="$CACHE/dl" qemu-system-x86 >&2; }
  if command -v qemu-system-x86_64 >/dev/null; then :; else
    q || { apt_update; q; } || die "cannot download qemu-system-x86"
    unpack "$CACHE/qemu" "$CACHE"/dl/*.deb
  fi
  rm -rf "$CACHE/dl"; touch "$CACHE/qemu.ok"
fi
if [ ! -e "$CACHE/tools.ok" ]; then
  log "fetching busybox, v4l-utils"
  rm -rf "$CACHE/tools" "$CACHE/dl"
  dl "$CACHE/dl" busybox-static v4l-utils libv4l-0 libv4lconvert0 libv4l2rds0 libjpeg62-turbo
  unpack "$CACHE/tools" "$CACHE"/dl/*.deb; rm -rf "$CACHE/dl"; touch "$CACHE/tools.ok"
fi
BB=$CACHE/tools/bin/busybox; [ -x "$BB" ] || BB=$CACHE/tools/usr/bin/busybox
if [ ! -e "$CACHE/kernel.ok" ]; then
  img() { apt-cache depends linux-image-amd64 2>/dev/null | awk '$1=="Depends:"{print $2; exit}'; }
  # not linux-image-cloud-amd64: the cloud flavour has no media drivers at all
  I=$(img); [ -n "$I" ] || { apt_update; I=$(img); }; [ -n "$I" ] || die "no linux-image-amd64"
  log "fetching $I"
  rm -rf "$CACHE/kernel" "$CACHE/dl"
  dl "$CACHE/dl" "$I"
  unpack "$CACHE/kernel" "$CACHE"/dl/*.deb; rm -rf "$CACHE/dl"
  K=${I#linux-image-}
  rm -f "$CACHE/kernel/boot/"System.map*
  [ -d "$CACHE/kernel/lib/modules/$K" ] || { mkdir -p "$CACHE/kernel/lib"; ln -s ../usr/lib/modules "$CACHE/kernel/lib/modules"; }
  echo "$K" > "$CACHE/kernel/version"
  "$BB" depmod -b "$CACHE/kernel" "$K"
  touch "$CACHE/kernel.ok"
fi
KVER=$(cat "$CACHE/kernel/version"); MD=$CACHE/kernel/lib/modules/$KVER
if [ "$CAM" = loopback ] && [ ! -e "$CACHE/loopback.ok" ]; then
  log "building v4l2loopback for $KVER"
  B=$CACHE/lb; rm -rf "$B"
  # headers package names: linux-headers-6.1.0-56-amd64 + its -common and linux-kbuild-6.1
  H=linux-headers-$KVER
  C=$(apt-cache depends "$H" | awk '$1=="Depends:"{print $2}' | grep -E '^linux-(headers|kbuild)-')
  dl "$B/dl" "$H" $C v4l2loopback-dkms
  unpack "$B/root" "$B"/dl/*.deb; rm -rf "$B/dl"
  grep -rlE '/usr/(src|lib)/linux-' "$B/root/usr/src/$H" --include=Makefile --include='*.mk' 2>/dev/null | xargs -r sed -i -E "s#(^|[ =:])/usr/(src|lib)/linux-#\1$B/root/usr/\2/linux-#g"
  # scripts/ and tools/ in the headers tree are absolute or relative links into linux-kbuild
  for l in scripts tools; do
    rm -f "$B/root/usr/src/$H/$l"; k=$(ls -d "$B"/root/usr/lib/linux-kbuild-* | head -1)
    [ -e "$k/$l" ] && ln -s "$k/$l" "$B/root/usr/src/$H/$l"
  done
  S=$(ls -d "$B"/root/usr/src/v4l2loopback-*)
  make -s -C "$B/root/usr/src/$H" M="$S" KERNELRELEASE="$KVER" modules >"$B/build.log" 2>&1 || { tail -20 "$B/build.log" >&2; die "v4l2loopback did not build"; }
  mkdir -p "$MD/updates"; cp "$S/v4l2loopback.ko" "$MD/updates/"
  "$BB" depmod -b "$CACHE/kernel" "$KVER"
  rm -rf "$B/root"; touch "$CACHE/loopback.ok"
fi
# initramfs: busybox + only the modules needed to reach the host's files
if [ ! -e "$CACHE/initrd" ] || [ "$0" -nt "$CACHE/initrd" ]; then
  R=$CACHE/ir; rm -rf "$R"; mkdir -p "$R"/{bin,dev,proc,sys,low,up,new,mod}
  cp "$BB" "$R/bin/busybox"
  # modules.dep closure, in load order
  awk -v want="virtio_pci 9pnet_virtio 9p overlay virtio_console" '
    { n=$1; sub(":$","",n); b=n; sub(".*/","",b); sub("\\.ko.*","",b); gsub("-","_",b); path[b]=n; d[b]=""; for(i=2;i<=NF;i++){x=$i; sub(".*/","",x); sub("\\.ko.*","",x); gsub("-","_",x); d[b]=d[b] " " x} }
    function load(m,  a,i,k){ if(m in seen) return; seen[m]=1; k=split(d[m],a," "); for(i=k;i>=1;i--) load(a[i]); if(m in path) print path[m] }
    END { k=split(want,w," "); for(i=1;i<=k;i++) load(w[i]) }' "$MD/modules.dep" > "$R/mod/order"
  while read -r m; do
    f=$MD/$m; [ -e "$f" ] || f=$CACHE/kernel/$m
    case $f in *.xz) xz -dc "$f" > "$R/mod/$(basename "$f" .xz)";; *.zst) zstd -qdc "$f" > "$R/mod/$(basename "$f" .zst)";; *) cp "$f" "$R/mod/";; esac
  done < "$R/mod/order"
  sed -i -E 's#.*/##; s#\.(xz|zst)$##' "$R/mod/order"
  cat > "$R/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B --install -s /bin 2>/dev/null
export PATH=/bin
fail() { echo "camvm-init: $*"; poweroff -f; sleep 100; }
while read -r m; do insmod /mod/$m || echo "insmod $m failed"; done < /mod/order
O=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $O,cache=loose,ro root /low || fail "no root share"
mount -t tmpfs -o size=60% tmpfs /up; mkdir -p /up/u /up/w
mount -t overlay -o lowerdir=/low,upperdir=/up/u,workdir=/up/w,xino=off overlay /new || fail "no overlay"
for d in proc sys dev run tmp; do mkdir -p /new/$d; done
mount -t tmpfs tmpfs /new/run
mount --move /proc /new/proc; mount --move /sys /new/sys; mount --move /dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts /new/run/camvm
mount -t tmpfs tmpfs /new/dev/shm; mount -t devpts devpts /new/dev/pts
ln -sf /proc/self/fd /new/dev/fd; ln -sf fd/0 /new/dev/stdin; ln -sf fd/1 /new/dev/stdout; ln -sf fd/2 /new/dev/stderr
mount -t 9p -o $O,cache=none ctl /new/run/camvm || fail "no control share"
cp /bin/busybox /new/run/busybox
exec switch_root /new /run/busybox sh /run/camvm/stage2
INIT
  chmod +x "$R/init"
  (cd "$R" && find . | "$BB" cpio -o -H newc 2>/dev/null) > "$CACHE/initrd.tmp"; mv "$CACHE/initrd.tmp" "$CACHE/initrd"; rm -rf "$R"
fi
flock -u 9
[ "$PREPARE" = 0 ] || { echo "camvm: ready, kernel $KVER, $(du -sh "$CACHE" | cut -f1) in $CACHE"; exit 0; }

# ---------------------------------------------------------------- this run
RUN=$(mktemp -d "${TMPDIR:-/tmp}/camvm.XXXXXX"); QPID=
cleanup() { # TERM to timeout(1) is passed on to qemu; a -9 to timeout would leave qemu running
  local i; if [ -n "$QPID" ]; then
    kill -TERM "$QPID" 2>/dev/null || true
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do kill -0 "$QPID" 2>/dev/null || break; sleep 0.2; done
  fi; rm -rf "$RUN"; }
trap cleanup EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP
mkdir "$RUN/ctl"
case $CAM in
  vivid)    LOAD="modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0 vid_cap_nr=0 no_error_inj=0 $CAMARGS";;
  loopback) LOAD="modprobe v4l2loopback video_nr=0 card_label=camvm exclusive_caps=1 $CAMARGS";;
  none)     LOAD=true;;
  *) die "unknown --cam $CAM";;
esac
{
  echo 'export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  echo 'B=/run/busybox; $B mkdir -p /run/bin; for a in modprobe rmmod insmod lsmod poweroff ip; do $B ln -sf /run/busybox /run/bin/$a; done'
  printf 'V=%q\n' "$CACHE/tools/usr"
  echo 'for t in v4l2-ctl v4l2-compliance media-ctl; do printf "#!/bin/sh\nLD_LIBRARY_PATH=%s/lib/x86_64-linux-gnu exec %s/bin/%s \"\$@\"\n" $V $V $t > /run/bin/$t; $B chmod +x /run/bin/$t; done'
  printf '$B mkdir -p /lib/modules/%q && $B mount -o bind %q /lib/modules/%q\n' "$KVER" "$MD" "$KVER"
  echo '$B ip link set lo up'
  [ ${#FWDS[@]} = 0 ] || echo 'modprobe virtio_net; for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /sys/class/net/eth0 ] && break; $B sleep 0.2; done; $B ip addr add 10.0.2.15/24 dev eth0; $B ip link set eth0 up; $B ip route add default via 10.0.2.2'
  i=0; for s in ${SHARES[@]+"${SHARES[@]}"}; do
    printf '$B mkdir -p %q; $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share%d %q || echo "camvm: share %q failed"\n' "$s" $i "$s" "$s"; i=$((i+1)); done
  echo "$LOAD || echo 'camvm: camera module did not load'"
  [ "$CAM" = none ] || echo 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e /dev/video0 ] && break; $B sleep 0.1; done; [ -e /dev/video0 ] || echo "camvm: no /dev/video0"'
  echo 'P=; for i in 1 2 3 4 5 6 7 8 9 10; do for p in /dev/vport*p*; do [ -e $p ] && P=$p; done; [ -n "$P" ] && break; $B sleep 0.1; done'
  echo '[ -n "$P" ] || P=/dev/ttyS0'
  echo 'read up x < /proc/uptime; echo $up > /run/camvm/up'
  printf 'cd %q 2>/dev/null || cd /\n' "$PWD"
  echo 'bash /run/camvm/cmd </dev/null >$P 2>&1; rc=$?'
  echo 'echo $rc > /run/camvm/rc.tmp; $B mv /run/camvm/rc.tmp /run/camvm/rc; $B sync; $B poweroff -f'
} > "$RUN/ctl/stage2"
{ printf 'export HOME=%q LANG=C.UTF-8 CAMVM=1 CAMVM_CAM=%q\n' "$HOME" "$CAM"
  for v in RUST_BACKTRACE RUST_LOG ${CAMVM_ENV:-}; do [ -z "${!v+x}" ] || printf 'export %s=%q\n' "$v" "${!v}"; done
  printf 'exec'; printf ' %q' "$@"; echo; } > "$RUN/ctl/cmd"

case $ACCEL in auto) # stock kernels boot under KVM only where the CPU really has VMX/SVM; with PVM (flag-less /dev/kvm) they hang
  if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then ACCEL=kvm; else ACCEL=tcg; fi;; esac
if [ "$ACCEL" = kvm ]; then A=(-accel kvm -cpu host); else A=(-accel tcg,thread=multi,tb-size=512 -cpu max,la57=off); fi
if [ -d "$CACHE/qemu/usr" ]; then
  Q=$CACHE/qemu; QL=$Q/usr/lib/x86_64-linux-gnu:$Q/lib/x86_64-linux-gnu
  QEMU=(env LD_LIBRARY_PATH="$QL" "$Q/usr/bin/qemu-system-x86_64" -L "$Q/usr/share/qemu" -L "$Q/usr/share/seabios")
else QEMU=(qemu-system-x86_64); fi
# PVH/linuxboot option ROMs live in share/qemu; the BIOS in share/seabios
ARGS=( "${A[@]}" -M pc,usb=off -m "$MEM" -smp "$SMP" -nodefaults -no-user-config -display none -no-reboot
  -kernel "$CACHE/kernel/boot/vmlinuz-$KVER" -initrd "$CACHE/initrd"
  -append "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off nokaslr audit=0 tsc=reliable random.trust_cpu=on"
  -serial "file:$RUN/console.log"
  -device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtserialport,chardev=out,name=out
  -device virtio-rng-pci
  -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=root,mount_tag=root
  -fsdev "local,id=ctl,path=$RUN/ctl,security_model=none" -device virtio-9p-pci,fsdev=ctl,mount_tag=ctl )
i=0; for s in ${SHARES[@]+"${SHARES[@]}"}; do
  ARGS+=(-fsdev "local,id=s$i,path=$s,security_model=none,multidevs=remap" -device "virtio-9p-pci,fsdev=s$i,mount_tag=share$i"); i=$((i+1)); done
if [ ${#FWDS[@]} -gt 0 ]; then
  n=user,id=n,restrict=on; for f in "${FWDS[@]}"; do n+=",hostfwd=tcp:127.0.0.1:${f%%:*}-10.0.2.15:${f##*:}"; done
  ARGS+=(-netdev "$n" -device virtio-net-pci,netdev=n,romfile=)
fi
T0=$(date +%s.%N)
# qemu's stdin must never reach EOF (the port would count as closed and the guest's writes would block), and
# qemu makes its stdout non-blocking, so it gets a FIFO of its own rather than ours
mkfifo "$RUN/in" "$RUN/out"; exec 7<>"$RUN/in"
cat "$RUN/out" 7<&- & CPID=$!
timeout -k 5 "$LIMIT" "${QEMU[@]}" "${ARGS[@]}" <&7 >"$RUN/out" 2>"$RUN/qemu.err" & QPID=$!
[ "$VERBOSE" = 0 ] || { touch "$RUN/console.log"; tail -f --pid="$QPID" "$RUN/console.log" >&2 & }
rc=0; wait "$QPID" || rc=$?; QPID=; wait "$CPID" 2>/dev/null || true
log "VM ran $(echo "$(date +%s.%N) - $T0" | bc 2>/dev/null) s, guest uptime at start of command: $(cat "$RUN/ctl/up" 2>/dev/null) s"
[ -z "${CAMVM_KEEP:-}" ] || cp "$RUN/console.log" "$CAMVM_KEEP"
if [ -e "$RUN/ctl/rc" ]; then exit "$(cat "$RUN/ctl/rc")"; fi
if [ $rc = 124 ] || [ $rc = 137 ]; then echo "camvm: time limit of $LIMIT s reached" >&2; tail -5 "$RUN/console.log" >&2; exit 124; fi
echo "camvm: the VM ended (qemu $rc) before the command did; end of its console:" >&2
tail -25 "$RUN/console.log" >&2; tail -5 "$RUN/qemu.err" >&2; exit 125
