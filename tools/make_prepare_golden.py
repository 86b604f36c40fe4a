"""Makes tests/data/prepare: small images and the tensors that Pillow makes of them, which the runtime must agree with.

    python tools/make_prepare_golden.py tests/data/prepare

Needs (made with): numpy==2.4.6, pillow==13.0.0. `stretch` is Image.resize(BILINEAR) to size x size; `crop` is what
torchvision does to a Pillow image in Resize(size), CenterCrop(size): shorter side to size, longer side to
int(size * long / short), then the middle, its corner at int(round((long - size) / 2)).
"""
import json
import pathlib
import sys

import numpy as np
from PIL import Image

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PLAIN = ([0.5, 0.45, 0.4], [0.25, 0.3, 0.35])
# name, width, height, kind of picture, side, fit, channels, (mean, std)
CASES = [
    ("scene", 160, 120, "scene", 32, "stretch", "rgb", IMAGENET),
    ("noise", 37, 53, "noise", 48, "stretch", "bgr", PLAIN),
    ("small", 20, 14, "scene", 48, "stretch", "rgb", IMAGENET),
    ("wide", 161, 97, "scene", 32, "crop", "rgb", IMAGENET),
    ("tall", 50, 91, "noise", 32, "crop", "bgr", PLAIN),
    ("exact", 33, 32, "noise", 32, "crop", "rgb", IMAGENET),
]


def picture(random, kind, width, height):
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(3):
        a, b, c = random.uniform(0.02, 0.5, 3)
        waves = 70 * np.sin(a * x + b * y) + 50 * np.sign(np.sin(c * x - a * y))
        planes.append(128 + waves + random.normal(0, 3, x.shape))
    return np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8)


def resized(image, side, fit):
    if fit == "stretch":
        return image.resize((side, side), Image.BILINEAR)
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(side * long / short)
    image = image.resize((longer, side) if width > height else (side, longer), Image.BILINEAR)
    left, top = int(round((image.width - side) / 2.0)), int(round((image.height - side) / 2.0))
    return image.crop((left, top, left + side, top + side))


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    index = []
    for name, width, height, kind, side, fit, channels, (mean, std) in CASES:
        pixels = picture(random, kind, width, height)
        image = Image.fromarray(pixels)
        image.save(folder / f"{name}.png", optimize=True)
        x = np.asarray(resized(image, side, fit), np.float32)
        x = x[:, :, ::-1] if channels == "bgr" else x
        x = (x / 255 - np.float32(mean)) / np.float32(std)
        np.ascontiguousarray(x.transpose(2, 0, 1)).astype("<f4").tofile(folder / f"{name}.f32")
        index.append({"name": name, "side": side, "fit": fit, "channels": channels, "mean": mean, "std": std})
    (folder / "cases.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
