#!/usr/bin/env python3
"""Holds what `afterimage` makes of picture files against Pillow: the same embedding, or a reason why there is none.

    python3 tools/picture_corpus.py --encoder models/mobilenetv2.onnx FOLDER [FOLDER ...]

FOLDERs are collections of odd and broken pictures, such as the test images of Pillow, of image-rs and PngSuite (none is kept
here). Every file below them is embedded, and so is what Pillow decodes of it (turned as EXIF says, without alpha). Told are
the files that one of the two alone reads, and those whose two embeddings have a cosine below --least. Exit code 1: the
program failed, took longer than --seconds, or there are such cosines. Needs Pillow and numpy.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
from PIL import Image, ImageOps

ENDINGS = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# The limit of the program, so that Pillow refuses no more than it.
Image.MAX_IMAGE_PIXELS = 1 << 27


def pillow(path):
    """The picture as Pillow sees it, in RGB, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as picture:
                if getattr(picture, "is_animated", False) and picture.format in ("GIF", "WEBP"):
                    return None, "animated"
                if picture.mode in ("I;16", "I;16B", "I"):
                    deep = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int64)
                    return Image.fromarray(((np.clip(deep, 0, 65535) + 128) // 257).astype(np.uint8)).convert("RGB"), None
                return ImageOps.exif_transpose(picture).convert("RGB"), None
        except Exception as error:  # Whatever a decoder of odd files throws.
            return None, f"{type(error).__name__}: {error}"


def embed(program, encoder, source, out, seconds):
    """Embeddings by the names of their files, and the log."""
    command = [program, "-v", "embed", "--source", f"dir:{source}", "--encoder", encoder, "--out", out, "--json"]
    command += ["--set", "encoder.threads=1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if ran.returncode != 0 or "panicked" in ran.stderr:
        sys.exit(f"{' '.join(map(str, command))} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    rows = {}
    for file in sorted(pathlib.Path(out, "embeddings").glob("*.npy")):
        records = [json.loads(line) for line in file.with_suffix(".jsonl").open()]
        rows |= {record["file"]: row for record, row in zip(records, np.load(file).astype(np.float32))}
    return rows, ran.stderr, json.loads(ran.stdout)


def reasons(log):
    """What the log says of files that could not be read, by their names."""
    lines = (line.partition("cannot read the image ")[2] for line in log.splitlines())
    parts = (line.partition(": ") for line in lines if line)
    return {pathlib.Path(path).name: why for path, _, why in parts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--program", default="afterimage")
    parser.add_argument("--least", type=float, default=0.999)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    files = sorted(p for folder in arguments.folders for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        for name in ("own", "pillow"):
            (place / name).mkdir()
        refused = {}
        for number, path in enumerate(files):
            name = f"{number:05}{path.suffix}"
            (place / "own" / name).symlink_to(path.resolve())
            picture, refused[name] = pillow(path)
            if picture is not None:
                picture.info = {}
                picture.save(place / "pillow" / f"{number:05}.png", compress_level=1)
        own, log, report = embed(arguments.program, arguments.encoder, place / "own", place / "a", arguments.seconds)
        others, _, _ = embed(arguments.program, arguments.encoder, place / "pillow", place / "b", arguments.seconds)
    others = {name.partition(".")[0]: row for name, row in others.items()}
    why, counts, low = reasons(log), collections.Counter(), []
    for number, path in enumerate(files):
        name = f"{number:05}{path.suffix}"
        mine, theirs = own.get(name), others.get(f"{number:05}")
        if mine is not None and theirs is not None:
            counts["both"] += 1
            cosine = float(mine @ theirs)
            if cosine < arguments.least:
                low.append((cosine, path))
        elif mine is not None:
            counts["afterimage alone"] += 1
            print(f"afterimage alone: {path} ({refused[name]})")
        elif theirs is not None:
            counts["Pillow alone"] += 1
            print(f"Pillow alone: {path} ({why.get(name, 'left out')})")
        else:
            counts["neither"] += 1
    for cosine, path in sorted(low):
        print(f"cosine {cosine:.4f}: {path}")
    print(f"{len(files)} files: {dict(counts)}; {len(low)} of {counts['both']} below {arguments.least}; report {report['source']}")
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main()
