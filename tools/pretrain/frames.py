"""The frames to train on: folders of images and videos, decoded once into one array.

A shot is a folder of images in the order of their names, or what a video shows without a cut; of long ones, blocks.
Pairs of frames never cross shots, and whole shots are held out for the monitor.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
from PIL import Image, ImageOps

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".ts"}
BLOCK = 128  # frames of a shot at most
CUT = 0.15  # mean difference of two frames, 0 to 1, above which a video was cut between them


class Frames:
    """`pixels` `[n, side, side, 3]` uint8 (a file that is mapped), and the number of the shot of each, ascending."""

    def __init__(self, pixels, shots):
        self.pixels, self.shots = pixels, np.asarray(shots)
        self.first = np.searchsorted(self.shots, self.shots)
        self.last = np.searchsorted(self.shots, self.shots, "right") - 1

    def __len__(self):
        return len(self.shots)

    def split(self, held_out, seed):
        """Indices of the frames to train on, and of those of the held-out share of shots."""
        numbers = np.unique(self.shots)
        count = max(2, round(held_out * len(numbers)))
        if len(numbers) < count + 2:
            raise SystemExit(f"{len(numbers)} shots: at least 4 are needed, two of them held out; add folders or videos")
        kept = np.random.default_rng([seed, 1]).permutation(numbers)[count:]
        there = np.isin(self.shots, kept)
        return np.flatnonzero(there), np.flatnonzero(~there)

    def partners(self, indices, gap, rng):
        """For each frame another of its shot, 1 to `gap` frames away, where there is one (itself where not, or gap 0)."""
        if gap == 0:
            return indices
        offsets = rng.integers(1, gap + 1, len(indices)) * rng.choice([-1, 1], len(indices))
        others = indices + offsets
        outside = (others < self.first[indices]) | (others > self.last[indices])
        others = np.where(outside, indices - offsets, others)
        return np.clip(others, self.first[indices], self.last[indices])


def listing(folder):
    """Images by folder and videos below `folder`: a list of lists of paths, each one a shot or one video."""
    sources = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        paths = [pathlib.Path(where, name) for name in sorted(names)]
        images = [path for path in paths if path.suffix.lower() in IMAGES]
        sources += ([images] if images else []) + [[path] for path in paths if path.suffix.lower() in VIDEOS]
    if not sources:
        kinds = " ".join(sorted(IMAGES | VIDEOS))
        raise SystemExit(f"{folder}: no image and no video in it ({kinds})")
    return sources


def pictures(paths, side):
    for path in paths:
        try:
            with Image.open(path) as image:
                yield np.asarray(ImageOps.exif_transpose(image).convert("RGB").resize((side, side), Image.BILINEAR))
        except OSError as e:
            raise SystemExit(f"{path}: cannot be read as an image: {e}") from None


def video(path, side, fps):
    """Frames of a video through ffmpeg, `fps` a second (0: all)."""
    rate = f"fps={fps}," if fps else ""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", f"{rate}scale={side}:{side}", "-f", "rawvideo"]
    try:
        child = subprocess.Popen([*command, "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise SystemExit(f"{path}: videos need ffmpeg, which is not installed") from None
    size = side * side * 3
    with child:
        while len(raw := child.stdout.read(size)) == size:
            yield np.frombuffer(raw, np.uint8).reshape(side, side, 3)
        message = child.stderr.read().decode(errors="replace").strip()
    if child.returncode:
        raise SystemExit(f"{path}: ffmpeg cannot decode it: {message}")


def shots_of(frames, cuts):
    """Pairs of a frame and whether a shot begins with it: at the first, at a cut, after BLOCK frames."""
    before, length = None, 0
    for frame in frames:
        small = frame[::4, ::4].astype(np.float32) / 255
        begins = before is None or length == BLOCK or (cuts and np.abs(small - before).mean() > CUT)
        before, length = small, 1 if begins else length + 1
        yield frame, begins


def decode(folder, out, side, fps):
    """Frames of `folder`, decoded into `out`/frames.npy, or from there if nothing has changed since."""
    sources = listing(folder)
    facts = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for source in sources for p in source]
    key = hashlib.sha256(json.dumps([side, fps, BLOCK, CUT, facts]).encode()).hexdigest()
    index, array = pathlib.Path(out, "frames.json"), pathlib.Path(out, "frames.npy")
    if index.exists() and array.exists() and (known := json.loads(index.read_text()))["key"] == key:
        return Frames(np.load(array, mmap_mode="r"), known["shots"])

    index.unlink(missing_ok=True)  # never an index beside the array of another
    shots, raw = [], pathlib.Path(out, "frames.part")
    with open(raw, "wb") as file:
        for source in sources:
            moving = source[0].suffix.lower() in VIDEOS
            frames = video(source[0], side, fps) if moving else pictures(source, side)
            for frame, begins in shots_of(frames, moving):
                shots.append((shots[-1] if shots else -1) + begins)
                file.write(frame.tobytes())
    if not shots:
        raise SystemExit(f"{folder}: no frame could be decoded")
    with open(array, "wb") as file, open(raw, "rb") as pixels:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(shots), side, side, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(pixels, file, 1 << 20)
    raw.unlink()
    index.with_suffix(".part").write_text(json.dumps({"key": key, "shots": [int(s) for s in shots]}))
    os.replace(index.with_suffix(".part"), index)
    return Frames(np.load(array, mmap_mode="r"), shots)
