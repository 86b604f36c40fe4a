"""examples/python and examples/c print the same embeddings, and those of `afterimage embed`, over real pictures."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import PIL.Image

from .common import ROOT, installed, program, skip

PYTHON = ROOT / "examples/python/embed_image.py"
PICTURES = sorted((ROOT / "data/objects/query").rglob("*.jpg"))[::90]


def call(*command, cwd):
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)


def printed(ran):
    assert ran.returncode == 0, ran.stderr
    first, *lines = ran.stdout.splitlines()
    return first, np.array([line.split(" ") for line in lines], np.float64)


def least_cosine(a, b):
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def folder_of_headers():
    """The folder of ONNX Runtime's C headers: ONNXRUNTIME_INCLUDE, or where examples/c/Makefile looks without it."""
    if named := os.environ.get("ONNXRUNTIME_INCLUDE"):
        return named
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    for folder in (cache / "afterimage/onnxruntime-include", pathlib.Path("/usr/include/onnxruntime")):
        if (folder / "onnxruntime_c_api.h").exists():
            return folder
    return skip("runtime-headers", "no onnxruntime_c_api.h; name its folder with ONNXRUNTIME_INCLUDE (examples/c/README.md)")


class Consumers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        installed("compiler", "cc")
        headers = folder_of_headers()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        build = call(
            "cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-isystem", headers, "-o", cls.folder / "embed_image",
            "embed_image.c", "prepare.c", "-ldl", "-lm", cwd=ROOT / "examples/c",
        )
        assert build.returncode == 0, build.stderr
        (cls.folder / "png").mkdir()
        cls.pictures, cls.ppms = [], []
        for i, path in enumerate(PICTURES):
            # Not square, so that fitting shows.
            picture = PIL.Image.open(path).convert("RGB").crop((0, 9 * (i % 3), 96, 96))
            for name, all_names in ((f"png/{i:02}.png", cls.pictures), (f"{i:02}.ppm", cls.ppms)):
                picture.save(cls.folder / name)
                all_names.append(name)
        for run, model in (("vectors", "moco-mobilenetv2"), ("grids", "cpc-mobilenetv2")):
            program(
                "learn", "--encoder", ROOT / f"models/{model}.onnx", "--source", ROOT / "data/objects/stream/0000", "--out",
                run, cwd=cls.folder,
            )

    def compare(self, run, needed, *options):
        program("export", "--run", run, "--onnx", "m.onnx", *options, cwd=self.folder)
        with tempfile.TemporaryDirectory() as out:
            program("embed", "--run", run, "--source", "png", "--out", out, cwd=self.folder)
            own = np.load(pathlib.Path(out) / "embeddings/0000.npy").astype(np.float64)
        line, python = printed(call(sys.executable, PYTHON, "m.onnx", *self.pictures, cwd=self.folder))
        other_line, c = printed(call(self.folder / "embed_image", "m.onnx", *self.ppms, cwd=self.folder))
        self.assertEqual(line, other_line)
        self.assertEqual((python.shape, c.shape), (own.shape, own.shape))
        found = least_cosine(python, c), least_cosine(python, own), least_cosine(c, own)
        print(f"{run} {' '.join(options)}: Python and C {found[0]:.7f}, Python and embed {found[1]:.7f}, C and embed {found[2]:.7f}")
        self.assertGreaterEqual(found[0], 0.9999)
        self.assertGreaterEqual(min(found), needed)

    def test_vectors(self):
        self.compare("vectors", 0.9999)
        self.compare("vectors", 0.9999, "--batch", "4")
        self.compare("vectors", 0.999, "--dtype", "f16")
        self.compare("vectors", 0.999, "--dtype", "f16", "--io", "f16", "--batch", "1")

    def test_grids(self):
        self.compare("grids", 0.9999, "--grid")
        self.compare("grids", 0.999, "--dtype", "f16")

    def test_what_cannot_be_used_is_named(self):
        program("export", "--run", "vectors", "--onnx", "good.onnx", cwd=self.folder)
        (self.folder / "cut.ppm").write_bytes(b"P6 20 20 255\nabc")
        for arguments, part in (
            (("good.onnx", "nowhere.png"), "nowhere.png"),
            (("good.onnx", "good.onnx"), "good.onnx"),
            (("good.onnx", "cut.ppm"), "cut.ppm"),
            (("cut.ppm", "00.ppm"), "cut.ppm"),
            (("nowhere.onnx", "00.ppm"), "nowhere.onnx"),
            ((ROOT / "tests/data/tiny.onnx", "00.ppm"), "no entry afterimage.schema"),
        ):
            ran = call(sys.executable, PYTHON, *arguments, cwd=self.folder)
            self.assertEqual(ran.returncode, 1, ran.stderr)
            self.assertRegex(ran.stderr, r"^embed_image: ")
            self.assertIn(part, ran.stderr)
