#!/usr/bin/env python3
"""Embeddings of pictures with a merged model of `afterimage export`, through ONNX Runtime:

    embed_image.py MODEL.onnx PICTURE...

What is done to the pixels comes from the metadata of the model (docs/merged-onnx.md). Prints a line that begins with #, then a
line of numbers a picture, as examples/c/embed_image does. Needs onnxruntime, numpy and Pillow.
"""
import argparse
import os
import sys

# The builds for Linux report to their maker since 1.31; this has it never begin. Must be set before the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SCHEMA = "2"


class Refused(Exception):
    """What cannot be used, for people."""


class Model:
    """A merged model and what its metadata say."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no class for its errors.
            raise Refused(f"{path}: {error}") from None
        self.entries = self.session.get_modelmeta().custom_metadata_map
        if self["schema"] != SCHEMA:
            raise Refused(f"the metadata of {path} are of version {self['schema']}, {SCHEMA} is known")
        if self["interpolation"] != "bilinear" or self["input_layout"] != "nchw":
            raise Refused(f"{path} wants a preparation that is not known here")
        if self["motion_crop"] != "false":
            raise Refused(
                f"{path} is of a run with preprocess.motion_crop: it embeds the window around what moves, not whole pictures"
            )
        self.height, self.width = (int(side) for side in self["input_size"].split())
        self.mean, self.std = (np.array(self[key].split(), np.float32)[:, None, None] for key in ("mean", "std"))
        self.type = np.float16 if self["io"] == "f16" else np.float32
        # A model of a fixed batch gets the picture so many times; the first row is taken.
        self.batch = 1 if self["batch"] == "dynamic" else int(self["batch"])

    def __getitem__(self, key):
        try:
            return self.entries[f"afterimage.{key}"]
        except KeyError:
            message = f"the model has no entry afterimage.{key}: it was not written by `afterimage export`"
            raise Refused(message) from None

    def region(self, width, height):
        """Left, top, right and bottom of what is resized, in pixels."""
        crop = self["fit"] == "crop"
        left, wide = kept(width, height, self.width, self.height, crop)
        top, high = kept(height, width, self.height, self.width, crop)
        return left, top, left + wide, top + high

    def prepare(self, picture):
        """A picture of Pillow as the input, [3, height, width]."""
        picture = picture.convert("RGB")
        resized = picture.resize((self.width, self.height), Image.BILINEAR, box=self.region(*picture.size))
        pixels = np.asarray(resized)
        gain = np.float32(1)
        if "afterimage.exposure" in self.entries:  # The mean of all pixels is brought to it.
            level, most = np.float32(self["exposure"]), np.float32(self["most_gain"])
            total = int(pixels.sum(dtype=np.int64))
            gain = np.float32(min(float(level) / (total / (255.0 * pixels.size)), float(most))) if total else most
        values = np.minimum(gain * (pixels.astype(np.float32) / np.float32(255)), np.float32(1))
        if self["channels"] == "bgr":
            values = values[:, :, ::-1]
        return (values.transpose(2, 0, 1) - self.mean) / self.std

    def embed(self, picture):
        """The embedding, of length 1."""
        images = np.repeat(self.prepare(picture)[None], self.batch, 0).astype(self.type)
        (rows,) = self.session.run([self["output"]], {self["input"]: np.ascontiguousarray(images)})
        return rows[0].astype(np.float32)


def kept(along, across, side, other, crop):
    """Start and length of what is kept along an axis of `along` pixels that becomes `side` (the other: `across`, `other`).

    The picture is scaled until it covers the input, as torchvision does: this axis to other * along // across, where that is more
    than `side`; and of it `side` pixels are kept from the middle.
    """
    if not crop or along * other <= across * side:
        return 0.0, float(along)
    longer = other * along // across
    start, scale = round((longer - side) / 2), along / longer
    return start * scale, min(side * scale, along - start * scale)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    arguments = parser.parse_args()
    try:
        model = Model(arguments.model)
        print(f"# space {model['space']} head {model['head']} dim {model['dim']}")
        for path in arguments.pictures:
            try:
                with Image.open(path) as picture:
                    embedding = model.embed(ImageOps.exif_transpose(picture))
            except (OSError, Image.DecompressionBombError) as error:
                raise Refused(f"{path}: {error}") from None
            print(" ".join(f"{value:.6f}" for value in embedding))
    except Refused as why:
        sys.exit(f"embed_image: {why}")


if __name__ == "__main__":
    main()
