"""tools/pretrain: the loss falls with each method, a resumed run equals one that was not stopped, and wrong use is named.

Needs PyTorch (make test-export). Each training run is a process of its own, as users start it, on a folder of made frames; MobileNetV2 with one
thread. About two minutes of processor time in all.
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from PIL import Image

from .common import TOOLS, installed, skip

try:
    import torch
except ImportError as error:
    skip("torch", f"PyTorch is needed (make test-export): {error}")

sys.path.insert(0, str(TOOLS / "pretrain"))

import augment  # noqa: E402
import export  # noqa: E402
import frames  # noqa: E402
import methods  # noqa: E402
import monitor  # noqa: E402
import networks  # noqa: E402

COMMON = (
    "--threads 1 --device cpu --every 8 --side 64 --held-out 0.2 --warmup 2 --optimizer adamw --norm group --crop 0.8 "
    "--jitter 0 --grey 0"
).split()
SMALL = {
    # From weights that tell the frames apart: a new network makes all keys alike, and its first loss says nothing.
    "moco": "--size 32 --batch 16 --queue 32 --gap 2 --blur 0 --rate 0.002 --momentum 0.99 --start START".split(),
    "simclr": "--size 32 --batch 16 --gap 2 --blur 0 --rate 0.001".split(),
    "cpc": "--batch 2 --freeze 14 --rate 0.004 --start START".split(),
}
STEPS = {"moco": 64, "simclr": 64, "cpc": 16}


def make_frames(folder, shots=24, count=4):
    """Shots of one bright square each, its own colours and place, that moves by some pixels."""
    rng = np.random.default_rng(5)
    for shot in range(shots):
        ground, paint, corner = rng.integers(0, 256, 3), rng.integers(0, 256, 3), rng.integers(4, 32, 2)
        path = pathlib.Path(folder, f"{shot:02d}")
        path.mkdir(parents=True)
        for k in range(count):
            picture = np.tile(ground, (64, 64, 1)) + rng.normal(0, 2, (64, 64, 3))
            picture[corner[0] + k : corner[0] + k + 20, corner[1] : corner[1] + 20] = paint
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path / f"{k}.png")


def run(*arguments):
    command = [sys.executable, "-B", str(TOOLS / "pretrain"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Trained(unittest.TestCase):
    """Runs on made frames, each method once in one go and once in two; SimCLR's is the start of the others."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.frames = pathlib.Path(cls.folder.name, "frames")
        make_frames(cls.frames)
        cls.start = None
        cls("test_simclr").train("simclr", "whole")
        cls.start = pathlib.Path(cls.folder.name, "simclr-whole", "checkpoint.pth.tar")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def settings(self, method):
        small = [str(self.start) if word == "START" else word for word in SMALL[method]]
        return ["--steps", str(STEPS[method]), *COMMON, *small]

    def train(self, method, name, *more):
        out = pathlib.Path(self.folder.name, f"{method}-{name}")
        done = run(method, self.frames, "--out", out, *self.settings(method), *more)
        if done.returncode:
            raise AssertionError(done.stderr)
        return torch.load(out / "checkpoint.pth.tar", weights_only=True)

    def check(self, method):
        out = pathlib.Path(self.folder.name, f"{method}-whole", "checkpoint.pth.tar")
        whole = torch.load(out, weights_only=True) if out.exists() else self.train(method, "whole")
        losses = [line["loss"] for line in whole["log"] if "loss" in line]
        self.assertLess(losses[-1], losses[0] - 0.05, losses)
        moved = self.train(method, "halves", "--stop-after", STEPS[method] // 2)
        self.assertEqual(moved["step"], STEPS[method] // 2)
        resumed = self.train(method, "halves", "--resume")
        self.assertEqual(resumed["state_dict"].keys(), whole["state_dict"].keys())
        for name, tensor in whole["state_dict"].items():
            self.assertTrue(torch.equal(tensor, resumed["state_dict"][name]), name)
        self.assertEqual([l["loss"] for l in resumed["log"] if "loss" in l], losses)
        return whole

    def test_moco(self):
        state = self.check("moco")["state_dict"]
        self.assertIn("module.encoder_q.features.0.0.weight", state)
        self.assertEqual(list(state["module.encoder_q.fc.2.weight"].shape), [128, 1280])
        self.assertEqual(list(state["module.queue"].shape), [128, 32])

    def test_simclr(self):
        state = self.check("simclr")["state_dict"]
        self.assertIn("backbone.features.0.0.weight", state)
        self.assertIn("projection_head.layers.2.weight", state)

    def test_cpc_and_its_export(self):
        import onnxruntime

        self.check("cpc")
        checkpoint, out = (pathlib.Path(self.folder.name, name) for name in ("cpc-whole/checkpoint.pth.tar", "cpc.onnx"))
        done = run("export", checkpoint, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        net, _ = export.encoder_of(checkpoint)
        images = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            wanted = networks.PatchGrid(net)(images).numpy()
            cell = net(images[1:, :, 32 * 5 : 32 * 5 + 64, 32 * 2 : 32 * 2 + 64])[0].numpy()
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        found = session.run(None, {"image": images.numpy()})[0]
        self.assertEqual(found.shape, (2, 7, 7, 1280))
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(found[1, 5, 2], cell, atol=1e-4)

    def test_blend_lies_between(self):
        import onnx
        from onnx import numpy_helper

        trained = self.train("moco", "blend", "--stop-after", 8)
        checkpoint = pathlib.Path(self.folder.name, "moco-blend", "checkpoint.pth.tar")
        name, weights = "features.18.0.weight", []
        for share in ("0", "0.25", "1"):
            out = checkpoint.with_name(f"{share}.onnx")
            done = run("export", checkpoint, out, "--start", self.start, "--blend", share)
            self.assertEqual(done.returncode, 0, done.stderr)
            graph = onnx.load(out).graph
            weights += [numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith(name)]
        start = torch.load(self.start, weights_only=True)["state_dict"][f"backbone.{name}"].numpy()
        end = trained["state_dict"][f"module.encoder_q.{name}"].numpy()
        self.assertGreater(np.abs(end - start).max(), 1e-4)
        for found, wanted in zip(weights, (start, 0.75 * start + 0.25 * end, end), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_other_settings_are_not_resumed(self):
        out = self.start.parent
        done = run("simclr", self.frames, "--out", out, *self.settings("simclr"), "--seed", 3, "--resume")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("seed: 0 then, 3 now", done.stderr)
        done = run("simclr", self.frames, "--out", out, *self.settings("simclr"))
        self.assertIn("--resume goes on with it", done.stderr)

    def test_wrong_use_is_named(self):
        out, empty = pathlib.Path(self.folder.name, "wrong"), pathlib.Path(self.folder.name, "empty")
        empty.mkdir()
        torch.save({"conv1.weight": torch.zeros(1)}, empty / "other.pt")
        for words, more in (
            ("no image", [empty, "--norm", "batch"]),
            ("must come from trained weights", [self.frames, "--norm", "frozen"]),
            ("tensors are not there", [self.frames, "--start", empty / "other.pt"]),
            ("less than a batch", [self.frames, "--batch", 5000]),
            ("stages of this encoder can be frozen", [self.frames, "--freeze", 19]),
        ):
            done = run("moco", *more, "--out", out)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        done = run("cpc", self.frames, "--out", out, "--norm", "batch")
        self.assertIn("take group or frozen", done.stderr)


class Parts(unittest.TestCase):
    def test_videos_are_cut_into_shots(self):
        installed("ffmpeg", "ffmpeg")
        with tempfile.TemporaryDirectory() as folder:
            clip = str(pathlib.Path(folder, "two.avi"))
            halves = "color=black:s=64x64:d=1:r=10[a];color=white:s=64x64:d=1:r=10[b];[a][b]concat"
            subprocess.run(["ffmpeg", "-v", "error", "-filter_complex", halves, "-c:v", "mjpeg", clip], check=True)
            decoded = frames.decode(folder, folder, 32, 0)
            self.assertEqual([int((decoded.shots == s).sum()) for s in (0, 1)], [10, 10])
            self.assertEqual(len(frames.decode(folder, folder, 32, 5)), 10)
            pathlib.Path(folder, "broken.mp4").write_bytes(b"no video")
            with self.assertRaisesRegex(SystemExit, "broken.mp4: ffmpeg cannot decode it"):
                frames.decode(folder, folder, 32, 0)

    def test_partners_stay_in_the_shot(self):
        made = frames.Frames(np.zeros((9, 8, 8, 3), np.uint8), [0, 0, 0, 0, 1, 1, 1, 1, 2])
        indices = np.arange(9)
        for seed in range(20):
            others = made.partners(indices, 3, np.random.default_rng(seed))
            self.assertTrue((made.shots[others] == made.shots).all())
            self.assertTrue((others[:8] != indices[:8]).all())
            self.assertEqual(others[8], 8)
        self.assertTrue((made.partners(indices, 0, None) == indices).all())

    def test_views_follow_the_generator_and_exposure_holds(self):
        images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 0.3
        settings = augment.Views(32, exposure=0.45)
        one, two, other = (augment.view(images, settings, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        self.assertTrue(torch.equal(one, two))
        self.assertGreater(float((one - other).abs().mean()), 0.1)
        torch.testing.assert_close(augment.exposed(images, 0.45).mean((1, 2, 3)), torch.full((4,), 0.45), atol=0.01, rtol=0)
        still = augment.Views(64, crop=1.0, flip=0, jitter=0, grey=0, blur=0)
        squares = augment.crops(images, still, torch.Generator().manual_seed(4))
        self.assertEqual(squares.shape, images.shape)
        hue = torch.einsum("nij,njhw->nihw", augment.hue_matrices(torch.tensor([0.0, 6.2831853, 0.5, 1.0])), images)
        torch.testing.assert_close(hue[:2], images[:2], atol=1e-5, rtol=0)

    def test_own_shot_is_no_negative(self):
        """A batch of one shot has nothing to be told from: the loss is 0 for MoCo and SimCLR."""
        given = type("Given", (), {"temperature": 0.1, "momentum": 0.9, "projection": 8, "queue": 8, "freeze": 0, "seed": 0})
        images, shots = torch.randn(8, 3, 32, 32), torch.zeros(8, dtype=torch.long)
        for method in (methods.MoCo, methods.SimCLR):
            made = method(networks.encoder("mobilenetv2"), given).train()
            if method is methods.MoCo:
                self.assertGreater(float(made.loss(images, images, shots, torch.Generator())[0].detach()), 0.0)
            self.assertEqual(float(made.loss(images, images, shots, torch.Generator())[0].detach()), 0.0)

    def test_queue_wraps_around(self):
        given = type("Given", (), {"temperature": 0.1, "momentum": 0.9, "projection": 4, "queue": 5, "freeze": 0, "seed": 0})
        made = methods.MoCo(networks.encoder("mobilenetv2"), given)
        for first in (0, 3):
            shots = torch.arange(first, first + 3)
            made.enqueue(shots[:, None].expand(3, 4).float(), shots)
        self.assertEqual(made.queue_shot.tolist(), [5, 1, 2, 3, 4])
        self.assertEqual(made.queue[0].tolist(), [5.0, 1.0, 2.0, 3.0, 4.0])
        self.assertEqual(int(made.queue_ptr), 1)

    def test_context_sees_no_row_below(self):
        context = methods.Context(8, hidden=8).eval()
        grid = torch.randn(1, 8, 7, 7, generator=torch.Generator().manual_seed(3))
        changed = grid.clone()
        changed[:, :, 4] += 1
        with torch.no_grad():
            a, b = context(grid), context(changed)
        self.assertTrue(torch.equal(a[:, :, :4], b[:, :, :4]))
        self.assertGreater(float((a[:, :, 4:] - b[:, :, 4:]).abs().max()), 0)

    def test_split_norm_is_the_plain_one_over_each_part(self):
        x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(6))
        split, plain = networks.SplitBatchNorm(3).train(), torch.nn.BatchNorm2d(3).train()
        out = split(x)
        for part in range(8):
            rows = slice(part, 16, 8)
            torch.testing.assert_close(out[rows], plain(x[rows]), atol=1e-5, rtol=0)

    def test_votes(self):
        gallery = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]]), dim=1)
        queries = torch.tensor([[1.0, 0], [0, 1.0]])
        labels = torch.tensor([0, 1, 1])
        self.assertEqual(monitor.accuracy(gallery, labels, queries, torch.tensor([0, 1]), 1), 1.0)
        self.assertEqual(monitor.accuracy(gallery, labels, queries, torch.tensor([1, 1]), 1), 0.5)
        near = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.05], [1, 0.05]]), dim=1)
        self.assertEqual(monitor.accuracy(near, labels, queries[:1], torch.tensor([0]), 1), 1.0)
        self.assertEqual(monitor.accuracy(near, labels, queries[:1], torch.tensor([1]), 3), 1.0)

