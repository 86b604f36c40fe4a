"""Renders the frames that the bundled encoders of our own were trained on: objects and plates before still cameras.

    python3 -m venv .venv && .venv/bin/pip install pybullet==3.2.7 numpy==2.4.6 pillow==13.0.0
    .venv/bin/python tools/make_pretraining_frames.py [--out pretraining] [--objects 800] [--plates 1200] [--seed 7]

Writes OUT/objects/NNNN/FRAME.jpg and OUT/plates/NNNN/FRAME.jpg, one folder a shot, no labels. In each shot one thing
turns and moves before a wall, while the light changes.

- Objects: shapes of PyPI `pybullet`'s `random_urdfs` (zlib licence), each in one shot only, in any colour. The shapes
  that tools/make_objects.py draws for the seeds in HELD_OUT are left out: those sets are for measuring.
- Plates: drawn here (discs, triangles and the like with a rim and a sign on it), seen from changing distance, so that
  far ones are small and blurred. Letters and digits are of the font inside Pillow (Aileron, CC0).

The same seed and package versions write the same bytes.
"""

import argparse
import os
import shutil
import sys

import numpy as np
import pybullet
import pybullet_data
from make_objects import NOVEL, OVERSAMPLE, QUALITY, SEEN, SIZE, Studio, background, radius
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FRAMES = 12  # frames of a shot
HELD_OUT = (2026, 1, 2)  # seeds of tools/make_objects.py
WALLS = 24  # walls are shared by many shots, so that a wall does not tell a shot
NOISE = 3.0  # standard deviation of the sensor's noise, in levels of 255
TEXTS = "0123456789ABCDEFGHKLMNPRSTUVXZ"


def held_out_shapes():
    """Numbers of the shapes in the sets that tools/make_objects.py makes with the seeds HELD_OUT."""
    shapes = set()
    for seed in HELD_OUT:
        rng = np.random.default_rng(seed)
        background(rng, SIZE * OVERSAMPLE)  # it draws its wall first
        shapes.update(rng.choice(1000, SEEN + NOVEL, replace=False).tolist())
    return shapes


def wall(rng, side):
    """[side, side, 3] in 0..1: blotches, or a grid of tiles under a gradient, or both."""
    base = background(rng, side)
    if rng.random() < 0.6:
        cells = int(rng.integers(3, 12))
        tiles = rng.uniform(0.6, 1.0, (cells, cells, 1)).repeat(side // cells + 1, 0).repeat(side // cells + 1, 1)
        tone = rng.uniform(0.15, 0.85, 3)
        slope = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1), side).reshape(-1, 1, 1)
        base = rng.uniform(0, 0.6) * base + (tone * tiles[:side, :side] * slope) * 0.7
    return base.clip(0, 1)


def lights(rng):
    """Gain and tint of each frame of a shot, [FRAMES] and [FRAMES, 3]: the light drifts from one state to another."""
    t = np.linspace(0, 1, FRAMES)
    first, last = np.exp(rng.uniform(np.log(0.35), np.log(1.5), 2))
    tints = rng.uniform(0.93, 1.07, (2, 3))
    return first * (last / first) ** t, tints[0] + (tints[1] - tints[0]) * t[:, None]


def object_shot(studio, number, rng):
    """Frames of one object that turns and drifts through the view, the lamp and the gain moving as well."""
    folder = os.path.join(pybullet_data.getDataPath(), "random_urdfs", f"{number:03d}")
    reach = rng.uniform(0.4, 0.7)
    scaling = reach / (0.015 * radius(os.path.join(folder, f"{number:03d}.obj")))
    body = pybullet.loadURDF(os.path.join(folder, f"{number:03d}.urdf"), globalScaling=scaling)
    pybullet.changeVisualShape(body, -1, rgbaColor=(*rng.uniform(0.08, 0.98, 3), 1))
    gains, tints = lights(rng)
    lamps = np.linspace(rng.normal((0, -2, 2), (1.5, 0.5, 0.5)), rng.normal((0, -2, 2), (1.5, 0.5, 0.5)), FRAMES)
    turn, sweep = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * rng.uniform(0.6, 2.0) * np.pi
    tilt = rng.uniform(-0.4, 0.4, 2)
    nearest = np.array([0.6, 0.9, 0.4])
    places = np.linspace(rng.uniform(-nearest, nearest), rng.uniform(-nearest, nearest), FRAMES)
    for k in range(FRAMES):
        pose = pybullet.getQuaternionFromEuler((tilt[0], tilt[1], turn + sweep * k / (FRAMES - 1)))
        pybullet.resetBasePositionAndOrientation(body, places[k].tolist(), pose)
        yield studio.shoot(gains[k], tints[k], lamps[k], rng)
    pybullet.removeBody(body)


def outline(kind, centre, reach):
    """Corners of a plate: a polygon of `kind` corners, many for a disc."""
    corners, start = kind
    angles = start + np.arange(corners) * 2 * np.pi / corners
    return [(centre + reach * np.cos(a), centre + reach * np.sin(a)) for a in angles]


SHAPES = [(48, 0), (3, -np.pi / 2), (3, np.pi / 2), (4, 0), (4, np.pi / 4), (8, np.pi / 8), (5, -np.pi / 2), (6, 0)]


def colour(rng, value=None):
    hue, saturation = rng.uniform(0, 255), rng.choice([rng.uniform(0, 30), rng.uniform(150, 255)])
    value = rng.uniform(30, 255) if value is None else value
    return Image.new("HSV", (1, 1), (int(hue), int(saturation), int(value))).convert("RGB").getpixel((0, 0))


def symbol(draw, rng, side, ink):
    """What is on a plate: up to three characters, an arrow, bars or a blob."""
    middle = side / 2
    kind = rng.integers(0, 4)
    if kind == 0:
        text = "".join(rng.choice(list(TEXTS), rng.integers(1, 4)))
        font = ImageFont.load_default(side * (0.5, 0.36, 0.28)[len(text) - 1])
        draw.text((middle, middle), text, fill=ink, font=font, anchor="mm")
    elif kind == 1:
        angle, length = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.18, 0.26)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        tail, neck, tip = middle - along * length, middle + along * length * 0.2, middle + along * length
        draw.line([tuple(tail), tuple(neck)], fill=ink, width=int(side * rng.uniform(0.05, 0.1)))
        draw.polygon([tuple(neck + across * length * 0.5), tuple(tip), tuple(neck - across * length * 0.5)], fill=ink)
    elif kind == 2:
        count, vertical = int(rng.integers(1, 4)), rng.random() < 0.5
        for c in np.linspace(-0.14, 0.14, count) if count > 1 else [0.0]:
            a, b = (middle - side * 0.2, middle + side * (c - 0.03)), (middle + side * 0.2, middle + side * (c + 0.03))
            draw.rectangle((a[1], a[0], b[1], b[0]) if vertical else (*a, *b), fill=ink)
    else:
        corners = int(rng.integers(5, 10))
        reach = side * rng.uniform(0.1, 0.3, corners)
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        draw.polygon([(middle + r * np.cos(a), middle + r * np.sin(a)) for r, a in zip(reach, angles)], fill=ink)


def plate(rng, side=256):
    """One plate as an RGBA picture, `side` square, clear around it."""
    picture = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(picture)
    kind = SHAPES[rng.integers(0, len(SHAPES))]
    draw.polygon(outline(kind, side / 2, side * 0.49), fill=colour(rng))
    draw.polygon(outline(kind, side / 2, side * rng.uniform(0.36, 0.45)), fill=colour(rng))
    symbol(draw, rng, side, colour(rng, rng.choice([20, 250])))
    return picture


def plate_shot(scene, rng):
    """Frames of a plate that comes nearer before the wall `scene` ([SIZE, SIZE, 3] in 0..1)."""
    shown = plate(rng)
    gains, tints = lights(rng)
    reach = np.linspace(rng.uniform(0.35, 0.7), rng.uniform(0.6, 0.95), FRAMES) * SIZE
    sharp = np.linspace(rng.uniform(0.2, 0.5), rng.uniform(0.4, 1.0), FRAMES)  # pixels that the lens resolves, of SIZE
    places = np.linspace(*rng.uniform(-0.12, 0.12, (2, 2)), FRAMES) * SIZE + SIZE / 2
    turns = np.linspace(*rng.uniform(-12, 12, 2), FRAMES)
    squash = np.linspace(*rng.uniform(0.75, 1.0, 2), FRAMES)
    base = Image.fromarray((scene * 255).astype(np.uint8))
    for k in range(FRAMES):
        size = (max(8, int(reach[k] * squash[k])), max(8, int(reach[k])))
        thing = shown.resize(size, Image.LANCZOS).rotate(turns[k], Image.BICUBIC, expand=True)
        frame = base.copy()
        frame.paste(thing, (int(places[k][0] - thing.width / 2), int(places[k][1] - thing.height / 2)), thing)
        small = max(16, int(SIZE * sharp[k]))
        frame = frame.filter(ImageFilter.GaussianBlur(0.4)).resize((small, small), Image.BOX)
        pixels = np.asarray(frame, float) * gains[k] * tints[k]
        pixels = (pixels + rng.normal(0, NOISE, pixels.shape)).round().clip(0, 255).astype(np.uint8)
        yield Image.fromarray(pixels).resize((SIZE, SIZE), Image.BILINEAR)


def save(folder, frames):
    os.makedirs(folder)
    for k, frame in enumerate(frames):
        frame.save(os.path.join(folder, f"{k:02d}.jpg"), quality=QUALITY, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", default="pretraining")
    parser.add_argument("--objects", type=int, default=800, help="shots of objects, each of another shape")
    parser.add_argument("--plates", type=int, default=1200, help="shots of plates")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    free = sorted(set(range(1000)) - held_out_shapes())
    if given.objects > len(free):
        sys.exit(f"--objects {given.objects}: only {len(free)} shapes are not held out for measuring")
    part = given.out.rstrip("/") + ".part"
    shutil.rmtree(part, ignore_errors=True)

    rng = np.random.default_rng(given.seed)
    studio = Studio(rng)
    walls = [wall(rng, studio.side) for _ in range(WALLS)]
    for shot, number in enumerate(rng.permutation(free)[: given.objects]):
        studio.wall = walls[rng.integers(0, WALLS)]
        save(f"{part}/objects/{shot:04d}", object_shot(studio, number, rng))
    scenes = [wall(rng, SIZE) for _ in range(WALLS)]
    for shot in range(given.plates):
        save(f"{part}/plates/{shot:04d}", plate_shot(scenes[rng.integers(0, WALLS)], rng))
    shutil.rmtree(given.out, ignore_errors=True)
    os.rename(part, given.out)
    print(f"{given.out}: {given.objects + given.plates} shots of {FRAMES} frames")


if __name__ == "__main__":
    main()
