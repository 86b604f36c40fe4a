"""int8: simulated 8 bits are the real ones, and tuned weights give nearer latents. Needs PyTorch (make test-export)."""
import contextlib
import io
import pathlib
import tempfile
import unittest

import numpy as np
import onnx

from .common import ROOT, skip

try:
    import torch
except ImportError as error:
    skip("torch", f"PyTorch is needed (make test-export): {error}")

from encoders import cards, labelled, latents, tune
import quantize

FRAMES = ROOT / "data" / "objects" / "query"


class Tuned(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)

    def test_the_network_in_torch_is_the_one_in_onnx(self):
        path = ROOT / "models" / "mobilenetv2.onnx"
        card = {**cards.read(path), "size": 64}
        model, names = onnx.load(path), latents.tensors(card)
        feed = cards.prepared(cards.images(FRAMES, 1)[0], card)
        network = tune.Network(model, names)
        with torch.no_grad():
            found = network.run("image", torch.from_numpy(feed), False)
        expected = latents.session(model, names).run(names, {"image": feed})
        for name, value in zip(names, expected, strict=True):
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3)
        joined = latents.joined(dict(zip(names, expected, strict=True)), card)
        np.testing.assert_allclose(tune.joined(found, card)[0], joined, atol=1e-5)

    def test_tuned_weights_bear_8_bits_better(self):
        # Not equalised: 8 bits hurt.
        path = ROOT / "models" / "mobilenetv2.onnx"
        card = {**cards.read(path), "size": 64}
        files = cards.images(FRAMES)
        seen, others = files[::2], files[1:200:4]
        before, after = onnx.load(path), onnx.load(path)
        said = []
        steps = tune.tune(after, before, card, seen, 30, say=said.append)
        self.assertRegex(said[-1], "^tuning: step 30 of 30, centred cosine 0[.]")
        images = torch.from_numpy(np.concatenate([cards.prepared(f, card) for f in others]))

        def cosine(model):
            network = tune.Network(model, latents.tensors(card))
            with torch.no_grad():
                network.measure({"image": images, **network.run("image", images, False)})
                found = tune.joined(network.run("image", images, True), card)
                wanted = tune.joined(tune.Network(before, latents.tensors(card)).run("image", images, False), card)
            return labelled.centred_cosines(found.numpy(), wanted.numpy()).mean()

        lost, left = 1 - cosine(before), 1 - cosine(after)
        self.assertLess(left, 0.5 * lost)
        # Steps are told by the names of maps, and hold zero exactly.
        self.assertIn("image", steps)
        self.assertTrue(all(step > 0 and 0 <= zero <= 255 for step, zero in steps.values()))

    def test_the_script_tunes_and_says_so(self):
        with tempfile.TemporaryDirectory() as place:
            model, out = pathlib.Path(place, "m.onnx"), pathlib.Path(place, "t.onnx")
            model.write_bytes((ROOT / "models" / "mobilenetv2.onnx").read_bytes())
            card = cards.read(ROOT / "models" / "mobilenetv2.onnx")
            cards.write(model, {**card, "size": 64}, "For a test: small images.")
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                quantize.main(
                    [str(model), "--out", str(out), "--frames", str(FRAMES), "--count", "16", "--rounds", "1", "--tune", "2"]
                )
            self.assertIn("tuning: step 2 of 2", said.getvalue())
            self.assertIn("tuned for 2 steps", cards.read(out)["source"])
            images = cards.images(FRAMES, 24)
            rows = [latents.of_images(onnx.load(path), cards.read(model), images) for path in (out, model)]
            self.assertGreater(labelled.centred_cosines(*rows).mean(), 0.9)


if __name__ == "__main__":
    unittest.main()
