"""Exports as .npy, Parquet and safetensors: the same run says the same in all of them, field by field."""
import json
import pathlib
import tempfile
import unittest

import duckdb
import numpy as np
import pandas
import PIL.Image
import pyarrow
import pyarrow.parquet
import safetensors
import safetensors.numpy

from .common import ROOT, program

KEYS = {
    "schema": "uint32", "camera": "string", "frame": "uint64", "file": "string", "stamp_ns": "int64", "wall_ns": "int64",
    "segment": "uint64", "level": "string", "space": "string", "head": "uint64", "encoder": "string",
    "preparation": "string", "learner": "string", "novelty": "float", "novel": "bool", "track": "int64", "class": "int64",
    "score": "float",
}
# Heads, spaces and novelty change, and there are several files.
LEARN = """
encoder.threads = 1
learn = { first_fit_frames = 128, refit_growth = 1.5, optimizer.frames_per_step = 4, objective.batch_pairs = 16, promote_lag_frames = 32 }
head = { dim = 24, candidates = ['slow'], hidden = 32 }
promotion = { min_blocks = 4, block_secs = 1.5, quantile = 0.2, min_interval_secs = 0 }
export = { latents = true, rotate_megabytes = 0.1, novel_above = 0.001 }
"""
ENCODER = ROOT / "tests/data/tiny.onnx"


class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        (cls.folder / "learn.toml").write_text(LEARN)
        cls.write_fixed_scene()
        for form in ("npy", "parquet", "safetensors"):
            for dtype in ("f32", "f16"):
                program(
                    "learn", "--config", "learn.toml", "--encoder", ENCODER, "--source",
                    "pattern://7?frames=1200&segments=120&width=64&height=48", "--out", f"{form}-{dtype}", "--set",
                    f"export.format={form}", "--set", f"export.dtype={dtype}", cwd=cls.folder,
                )
            program(
                "learn", "--encoder", ENCODER, "--source", "fixed", "--out", f"{form}-crop", "--set",
                "preprocess.motion_crop=true", "--set", "source.frame_rate=4", "--set", f"export.format={form}", "--set",
                "export.rotate_megabytes=0.02", cwd=cls.folder,
            )

    @classmethod
    def write_fixed_scene(cls):
        """A camera that stands still before a square that moves: some records have a box, others none."""
        (cls.folder / "fixed").mkdir()
        scene = np.random.default_rng(1).integers(60, 120, (96, 128, 3), dtype=np.uint8)
        for frame in range(120):
            image = scene.copy()
            if frame > 20:
                left = frame * 5 % 108
                image[30:50, left : left + 20] = 250
            PIL.Image.fromarray(image).save(cls.folder / "fixed" / f"{frame:04}.png")

    def files(self, form, run, kind, end=None):
        found = sorted((self.folder / f"{form}-{run}" / kind).glob(f"*.{end or form}"))
        self.assertGreater(len(found), 1)
        return found

    def each(self):
        """Runs, kinds of export, and the name of the numbers in each."""
        latents = ("f32", "latents", "latent")
        return [("f32", "embeddings", "embedding"), ("f16", "embeddings", "embedding"), latents,
                ("crop", "embeddings", "embedding")]

    def npy(self, run, kind):
        lines = [line for path in self.files("npy", run, kind, "jsonl") for line in path.read_text().splitlines()]
        return [np.load(path) for path in self.files("npy", run, kind)], [json.loads(line) for line in lines]

    def assert_records(self, found, wanted):
        """`found`: rows as dictionaries with every key; `wanted`: as in the lines of JSON, where keys may be absent."""
        self.assertEqual(len(found), len(wanted))
        for row, record in zip(found, wanted):
            self.assertEqual(set(row), {*KEYS, "box"})
            for key, value in row.items():
                if key in ("novelty", "score") and value is not None:
                    self.assertEqual(np.float32(value), np.float32(record[key]))
                elif key == "novel":
                    self.assertEqual(bool(value), record.get(key, False))
                else:
                    self.assertEqual(list(value) if key == "box" and value is not None else value, record.get(key), key)

    def test_the_run_has_what_is_compared(self):
        _, records = self.npy("f32", "embeddings")
        self.assertGreater(len({record["space"] for record in records}), 1)
        self.assertTrue(any(record["novelty"] is None for record in records))
        self.assertTrue(any(record.get("novel") for record in records))
        _, records = self.npy("crop", "embeddings")
        self.assertTrue(any("box" in record for record in records) and any("box" not in record for record in records))

    def test_pyarrow(self):
        for run, kind, name in self.each():
            arrays, records = self.npy(run, kind)
            paths = self.files("parquet", run, kind)
            files = [pyarrow.parquet.read_table(path, page_checksum_verification=True) for path in paths]
            numbers = pyarrow.float16() if arrays[0].dtype == np.float16 else pyarrow.float32()
            rows, all_rows = [], []
            for path, file in zip(paths, files):
                schema = file.schema
                width = schema.field(name).type.list_size
                self.assertEqual(schema.field(name).type, pyarrow.list_(pyarrow.field("element", numbers, False), width))
                self.assertEqual(schema.field("box").type.list_size, 4)
                for key, kind_of in KEYS.items():
                    self.assertEqual(str(schema.field(key).type), kind_of)
                pairs = pyarrow.parquet.read_metadata(path).metadata.items()
                meta = {key.decode(): value.decode() for key, value in pairs}
                flat = file[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                rows += list(flat.reshape(-1, width))
                plain = file.drop_columns([name]).to_pylist()
                self.assertEqual({(row["space"], row["encoder"], row["preparation"]) for row in plain}, {
                    tuple(meta[f"afterimage.{key}"] for key in ("space", "encoder", "preparation"))})
                self.assertEqual((meta["afterimage.schema"], meta["afterimage.dim"]), ("3", str(width)))
                all_rows += plain
            self.assert_records(all_rows, records)
            wanted = [row for array in arrays for row in array]
            self.assertEqual(len(rows), len(wanted))
            for a, b in zip(rows, wanted):
                np.testing.assert_array_equal(a, b)
                self.assertEqual(a.dtype, b.dtype)

    def test_pandas(self):
        for run, kind, name in self.each():
            arrays, records = self.npy(run, kind)
            frame = pandas.concat([pandas.read_parquet(path) for path in self.files("parquet", run, kind)])
            np.testing.assert_array_equal(np.concatenate(frame[name].to_list()), np.concatenate([a.ravel() for a in arrays]))
            self.assertEqual(frame["frame"].to_list(), [record["frame"] for record in records])
            self.assertEqual(frame["stamp_ns"].to_list(), [record["stamp_ns"] for record in records])
            self.assertEqual(frame["camera"].to_list(), [record["camera"] for record in records])

    def test_duckdb(self):
        for run, kind, name in self.each():
            arrays, records = self.npy(run, kind)
            files = [str(path) for path in self.files("parquet", run, kind)]
            query = duckdb.execute("SELECT * FROM read_parquet(?) ORDER BY frame", [files])
            keys = [column[0] for column in query.description]
            found = [dict(zip(keys, row)) for row in query.fetchall()]
            wanted = [row for array in arrays for row in array]
            for row, numbers in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(np.array(row.pop(name), numbers.dtype), numbers)
            self.assert_records(found, records)

    def test_safetensors(self):
        for run, kind, name in self.each():
            arrays, records = self.npy(run, kind)
            paths = self.files("safetensors", run, kind)
            lines = [path.with_suffix(".jsonl").read_text().splitlines() for path in paths]
            self.assertEqual([json.loads(line) for file in lines for line in file], records)
            found = [safetensors.numpy.load_file(path) for path in paths]
            for tensors, file in zip(found, lines):
                self.assertEqual(list(tensors), [name])
                self.assertEqual(len(tensors[name]), len(file))
            rows = [row for tensors in found for row in tensors[name]]
            for a, b in zip(rows, (row for array in arrays for row in array), strict=True):
                np.testing.assert_array_equal(a, b)
                self.assertEqual(a.dtype, b.dtype)
            with safetensors.safe_open(paths[0], "numpy") as file:
                self.assertEqual(file.metadata()["afterimage.space"], json.loads(lines[0][0])["space"])
                self.assertEqual(file.metadata()["afterimage.schema"], "3")
