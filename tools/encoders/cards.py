"""Model cards (`NAME.toml` beside `NAME.onnx`), and images prepared as a card says.

The runtime reads the same keys (`src/encoder/card.rs`); its preparation is `src/encoder/prepare`: Pillow's `BILINEAR`
resize to a square, exposure gain, then `(value - mean) / std`, planes first.
"""
import hashlib
import pathlib
import tomllib

import numpy as np
from PIL import Image, ImageOps

from . import Refused

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_GAIN = 8.0  # as in src/encoder/exposure.rs
SUFFIXES = {".jpg", ".jpeg", ".png"}


def read(model):
    """The card beside `model` as a dictionary."""
    path = pathlib.Path(model).with_suffix(".toml")
    if not path.is_file():
        raise Refused(f"{model} has no model card: {path} is not there")
    try:
        card = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"model card {path} is not TOML: {error}") from error
    missing = [key for key in ("name", "input", "output", "size", "channels", "mean", "std") if key not in card]
    if missing:
        raise Refused(f"model card {path}: missing {', '.join(missing)}")
    return card


def write(model, card, comment):
    """Writes `card` beside `model`, with the model's SHA-256 and `comment` as its first lines. The path of the card."""
    card = {**card, "sha256": sha256(model)}
    lines = [f"# {line}" for line in comment.splitlines()] + [f"{k} = {toml(v)}" for k, v in card.items() if v is not None]
    path = pathlib.Path(model).with_suffix(".toml")
    path.write_text("\n".join(lines) + "\n")
    return path


def toml(value):
    """A text, a number, or a list of them, as TOML."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped)
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return repr(value)


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def images(folder, count=None):
    """Images under `folder` in the order of their paths; with `count`, so many of them, evenly spaced."""
    found = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise Refused(f"{folder}: no {', '.join(sorted(SUFFIXES))} under it; name a folder of frames")
    if count is None or count >= len(found):
        return found
    return [found[i * len(found) // count] for i in range(count)]


def prepared(image, card, size=None):
    """The tensor `[1, 3, size, size]`, float32, of an image file (`size`: the card's where it is not given)."""
    size = size or card["size"]
    with Image.open(image) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    if card.get("fit", "stretch") == "crop":  # as torchvision's Resize(size), CenterCrop(size)
        short = min(picture.size)
        whole = tuple(size if length == short else int(size * length / short) for length in picture.size)
        picture = picture.resize(whole, Image.Resampling.BILINEAR)
        left, top = (round((length - size) / 2) for length in whole)
        picture = picture.crop((left, top, left + size, top + size))
    else:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    x = np.asarray(picture, np.float32) / 255
    if card.get("exposure") is not None:
        mean = float(x.mean(dtype=np.float64))
        gain = min(card["exposure"] / mean, MAX_GAIN) if mean > 0 else MAX_GAIN
        x = np.minimum(x * np.float32(gain), np.float32(1))
    if card["channels"] == "bgr":
        x = x[:, :, ::-1]
    x = (x - np.float32(card["mean"])) / np.float32(card["std"])
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])
