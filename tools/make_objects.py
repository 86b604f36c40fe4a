"""Renders data/objects: one fixed camera, one object a visit, light that changes between sessions.

    python3 -m venv .venv && .venv/bin/pip install pybullet==3.2.7 numpy pillow
    .venv/bin/python tools/make_objects.py [--out data/objects] [--seed 2026]

Writes stream/SEGMENT/FRAME.jpg (unlabelled; a segment is one visit of one object), gallery/CLASS/FRAME.jpg and
query/CLASS/FRAME.jpg, CLASS being `seen/NNN` (objects that are also in the stream) or `novel/NNN`. Gallery and query
show each class at two further visits, in two lights of their own. Shapes are of PyPI `pybullet`'s `random_urdfs`.
The same seed and package versions write the same bytes.
"""

import argparse
import os
import shutil
import sys

import numpy as np
import pybullet
import pybullet_data
from PIL import Image

SIZE = 96  # pixels, width and height of a frame
OVERSAMPLE = 2  # rendered this many times larger, then averaged, so that edges are smooth as a lens makes them
QUALITY = 80  # JPEG
FRAMES = 24  # frames of a visit
SEEN, NOVEL = 36, 24  # objects in the stream and in the labelled parts; objects in the labelled parts only
GALLERY = range(0, FRAMES, 6)  # frames of the gallery visit that are kept
QUERY = range(0, FRAMES, 2)
NOISE = 2.0  # standard deviation of the sensor's noise, in levels of 255
LIMIT = 5_000_000  # bytes of all files

# Only five paints, so that colour alone does not tell one object from another.
PAINTS = [(0.85, 0.15, 0.12), (0.15, 0.62, 0.22), (0.13, 0.42, 0.85), (0.88, 0.72, 0.15), (0.95, 0.95, 0.95)]

# One session is one time of day: gain, tint of the light (R, G, B) and where the lamp stands (x right, y away from the
# camera, z up). Three belong to the stream, one to the gallery, one to the queries.
SESSIONS = {
    "first": (1.00, (1.00, 1.00, 1.00), (1.0, -2.0, 2.5)),
    "second": (0.72, (1.02, 1.00, 0.98), (-2.0, -1.5, 1.5)),
    "third": (0.85, (0.98, 1.00, 1.02), (2.0, -1.0, 2.0)),
    "gallery": (0.88, (0.99, 1.00, 1.01), (0.2, -2.5, 1.2)),
    "query": (0.55, (1.02, 1.00, 0.97), (-0.8, -1.2, 3.0)),
}


def background(rng, size):
    """[size, size, 3] in 0..1: a blotchy wall, the sum of smooth noise of several widths."""
    wall = np.zeros((size, size, 3))
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.35), (24, 0.15)):
        noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        wall += weight * np.asarray(Image.fromarray(noise).resize((size, size), Image.BICUBIC), float)
    wall -= wall.min((0, 1))
    return 0.15 + 0.45 * wall / wall.max((0, 1))


def radius(path):
    """Distance of the farthest vertex of an .obj file from its origin, in the file's units."""
    with open(path, encoding="utf-8") as lines:
        vertices = [line.split()[1:4] for line in lines if line.startswith("v ")]
    return float(np.linalg.norm(np.array(vertices, float), axis=1).max())


class Studio:
    """The camera and what stands before it; `visit` yields the frames of one object passing by."""

    def __init__(self, rng):
        pybullet.connect(pybullet.DIRECT)
        self.side = SIZE * OVERSAMPLE
        self.wall = background(rng, self.side)
        self.view = pybullet.computeViewMatrix((0, -3.0, 0.9), (0, 0, 0), (0, 0, 1))
        self.lens = pybullet.computeProjectionMatrixFOV(40, 1.0, 0.1, 20)

    def visit(self, number, paint, session, rng):
        """Frames of one visit: object `number` of random_urdfs turns about a tilted axis and drifts through the view."""
        gain, tint, lamp = SESSIONS[session]
        gain = gain * rng.uniform(0.93, 1.07)
        tint = np.array(tint) * rng.uniform(0.99, 1.01, 3)
        lamp = np.array(lamp) + rng.normal(0, 0.15, 3)
        folder = os.path.join(pybullet_data.getDataPath(), "random_urdfs", f"{number:03d}")
        # The files scale their mesh by .015; every object is brought to the same reach.
        scaling = 0.55 / (0.015 * radius(os.path.join(folder, f"{number:03d}.obj")))
        body = pybullet.loadURDF(os.path.join(folder, f"{number:03d}.urdf"), globalScaling=scaling)
        pybullet.changeVisualShape(body, -1, rgbaColor=(*paint, 1))

        turn, sweep = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * rng.uniform(1.2, 2.0) * np.pi
        tilt = rng.uniform(-0.35, 0.35, 2)
        side = rng.choice([-1, 1])  # it comes in on one side and leaves on the other, nearer or farther
        start = np.array([-side * rng.uniform(0.2, 0.6), rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 0.3)])
        end = np.array([side * rng.uniform(0.2, 0.6), rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 0.3)])
        for k in range(FRAMES):
            t = k / (FRAMES - 1)
            pose = pybullet.getQuaternionFromEuler((tilt[0], tilt[1], turn + sweep * t))
            pybullet.resetBasePositionAndOrientation(body, (start + (end - start) * t).tolist(), pose)
            yield self.shoot(gain, tint, lamp, rng)
        pybullet.removeBody(body)

    def shoot(self, gain, tint, lamp, rng):
        """One frame as the sensor sees it: object before the wall, both under the light of the session, with noise."""
        _, _, rgba, _, mask = pybullet.getCameraImage(
            self.side,
            self.side,
            self.view,
            self.lens,
            lightDirection=lamp.tolist(),
            lightColor=(1, 1, 1),
            lightAmbientCoeff=0.45,
            lightDiffuseCoeff=0.6,
            lightSpecularCoeff=0.05,
            shadow=1,
            renderer=pybullet.ER_TINY_RENDERER,
        )
        rgb = np.asarray(rgba, np.uint8).reshape(self.side, self.side, 4)[:, :, :3] / 255.0
        there = np.asarray(mask).reshape(self.side, self.side, 1) >= 0
        scene = np.where(there, rgb, self.wall) * gain * tint
        scene = scene.reshape(SIZE, OVERSAMPLE, SIZE, OVERSAMPLE, 3).mean((1, 3)) * 255
        return Image.fromarray((scene + rng.normal(0, NOISE, scene.shape)).round().clip(0, 255).astype(np.uint8))


def save(out, folder, frames, keep):
    """Writes the frames numbered in `keep` to out/folder/NN.jpg."""
    path = os.path.join(out, folder)
    os.makedirs(path)
    for k, frame in enumerate(frames):
        if k in keep:
            frame.save(os.path.join(path, f"{k:02d}.jpg"), quality=QUALITY, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", default="data/objects")
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    part = arguments.out.rstrip("/") + ".part"
    shutil.rmtree(part, ignore_errors=True)

    rng = np.random.default_rng(arguments.seed)
    studio = Studio(rng)
    numbers = rng.choice(1000, SEEN + NOVEL, replace=False)
    paints = [PAINTS[i] for i in rng.integers(0, len(PAINTS), len(numbers))]

    segment = 0
    for session in ("first", "second", "third"):
        for thing in rng.permutation(SEEN):
            frames = studio.visit(numbers[thing], paints[thing], session, rng)
            save(part, f"stream/{segment:04d}", frames, range(FRAMES))
            segment += 1
    for folder, keep in (("gallery", GALLERY), ("query", QUERY)):
        for thing, number in enumerate(numbers):
            kind = "seen" if thing < SEEN else "novel"
            frames = studio.visit(number, paints[thing], folder, rng)
            save(part, f"{folder}/{kind}/{thing:03d}", frames, keep)

    files = [os.path.join(folder, name) for folder, _, names in os.walk(part) for name in names]
    size = sum(os.path.getsize(path) for path in files)
    if size > LIMIT:
        sys.exit(f"make_objects: {len(files)} files have {size} bytes, at most {LIMIT} are wanted; lower QUALITY")
    shutil.rmtree(arguments.out, ignore_errors=True)
    os.rename(part, arguments.out)
    print(f"{arguments.out}: {segment} segments, {len(numbers)} classes, {len(files)} files, {size} bytes")


if __name__ == "__main__":
    main()
