#!/usr/bin/env bash
# Makes data/street.mp4 from the clip `vtest.avi` of Debian's package `opencv-doc`.
#
#   tools/make_street_clip.sh [VTEST.AVI] [OUT.mp4]
#
# All 795 frames at 768x576 and 10 frames a second, H.264, under 2.5 MB. One encoder thread and no dates or tool names
# in the container, so that the same ffmpeg and x264 write the same bytes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${1:-/usr/share/doc/opencv-doc/examples/data/vtest.avi}
out=${2:-$root/data/street.mp4}
limit=2500000
frames=795

fail() { echo "make_street_clip: $*" >&2; exit 1; }
for tool in ffmpeg ffprobe; do
  command -v "$tool" >/dev/null || fail "$tool is not installed; install the package ffmpeg"
done
[ -f "$source" ] || fail "$source does not exist; install the package opencv-doc or name the clip"

part="${out%.mp4}.part.mp4"
trap 'rm -f "$part"' EXIT
ffmpeg -nostdin -v error -y -i "$source" -map 0:v:0 -an -fps_mode passthrough \
  -c:v libx264 -preset veryslow -crf 28.5 -pix_fmt yuv420p -threads 1 \
  -map_metadata -1 -fflags +bitexact -flags:v +bitexact -movflags +faststart "$part"

found=$(ffprobe -v error -count_frames -select_streams v:0 -show_entries stream=nb_read_frames -of csv=p=0 "$part")
bytes=$(stat -c %s "$part")
[ "$found" = "$frames" ] || fail "$found frames were written, $frames were expected from $source"
[ "$bytes" -le "$limit" ] || fail "the clip has $bytes bytes, at most $limit are wanted; raise -crf"
mv "$part" "$out"
echo "$out: $found frames, $bytes bytes"
