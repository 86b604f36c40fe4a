"""Golden values of the augmented views: tests/data/views/golden.json. Needs numpy and Pillow.

    python tools/make_views_golden.py
"""
import json
import pathlib

import numpy as np
from PIL import Image, ImageEnhance

SIDE = 16
rng = np.random.default_rng(5)
picture = (rng.integers(0, 256, (SIDE, SIDE, 3)) * rng.uniform(0.3, 1, (SIDE, 1, 1))).astype(np.uint8)


def colour(factors):
    """Brightness, contrast, saturation, as Pillow makes them."""
    image = Image.fromarray(picture)
    for enhance, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors):
        image = enhance(image).enhance(float(np.float32(factor)))
    return np.asarray(image)


def blur(sigma):
    """The convolution in full, in float64, over the picture reflected at its borders."""
    radius = int(np.ceil(3 * sigma))
    padded = np.pad(picture.astype(np.float64), ((radius, radius), (radius, radius), (0, 0)), "reflect")
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    out = [[(padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1] * kernel[..., None]).sum((0, 1)) for x in range(SIDE)] for y in range(SIDE)]
    return np.array(out)


golden = {
    "side": SIDE,
    "picture": picture.ravel().tolist(),
    "colour": [
        {"factors": f, "pixels": colour(f).ravel().tolist()}
        for f in ([0.625, 1.375, 0.5], [1.4, 0.6, 1.5], [1.25, 1.125, 1.0], [1.0, 1.0, 0.0])
    ],
    "blur": [{"sigma": s, "pixels": np.round(blur(s), 4).ravel().tolist()} for s in (0.4, 1.3, 4.0)],
    "flip": picture[:, ::-1].ravel().tolist(),
}
path = pathlib.Path(__file__).parent.parent / "tests/data/views/golden.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(golden) + "\n")
