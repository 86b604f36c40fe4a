"""Makes tests/data/prepare/resize.txt: digests of what Pillow's BILINEAR makes of noise, for random pairs of sizes.

    python tools/make_resize_golden.py tests/data/prepare/resize.txt

Needs (made with): numpy==2.4.6, pillow==13.0.0. Each line: seed, width, height, width and height wanted, FNV-1a (64 bits) of
the RGB bytes. The noise is the upper byte of `s = 1664525 s + 1013904223 mod 2^32`, from s = seed on.
"""
import pathlib
import sys

import numpy as np
from PIL import Image

PAIRS = 320


def noise(seed, count):
    # The powers of the generator, so that numpy can make all numbers at once.
    factor, summand = np.uint32(1664525), np.uint32(1013904223)
    factors = np.cumprod(np.full(count, factor, np.uint32), dtype=np.uint32)
    before = np.concatenate([[np.uint32(1)], factors[:-1]])
    return ((factors * np.uint32(seed) + np.cumsum(before, dtype=np.uint32) * summand) >> 24).astype(np.uint8)


def digest(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def main(path):
    random = np.random.default_rng(16)
    side = lambda most: int(np.exp(random.uniform(0, np.log(most))))
    lines = [f"# seed width height to_width to_height digest; Pillow {Image.__version__}"]
    for seed in range(PAIRS):
        width, height = side(700), side(500)
        wanted = (max(side(260), 1), max(side(260), 1)) if seed % 4 else (96, 112)
        picture = noise(seed, 3 * width * height).reshape(height, width, 3)
        resized = np.asarray(Image.fromarray(picture).resize(wanted, Image.BILINEAR))
        lines.append(f"{seed} {width} {height} {wanted[0]} {wanted[1]} {digest(resized.tobytes()):016x}")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
