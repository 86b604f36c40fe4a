"""Cards, images prepared as they say, and neighbours: the same as in the runtime."""
import json
import pathlib
import tempfile
import tomllib
import unittest

import numpy as np

from .common import ROOT
from encoders import Refused, cards, labelled

GOLDEN = ROOT / "tests" / "data" / "prepare"


class Cards(unittest.TestCase):
    def test_what_is_written_is_read_back(self):
        card = {
            "name": 'a "b" \\ c', "kind": "vector", "layout": None, "input": "image", "output": "f/é\n", "size": 32,
            "channels": "rgb", "mean": [0.5, 0.25, 0.0], "std": [1.0, 1e-06, 3], "source": "x", "licence": "y",
        }
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder, "m.onnx")
            model.write_bytes(b"abc")
            text = cards.write(model, card, "one\ntwo").read_text()
            self.assertTrue(text.startswith("# one\n# two\nname = "))
            wanted = {k: v for k, v in card.items() if v is not None}
            digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            self.assertEqual(tomllib.loads(text), {**wanted, "sha256": digest})
            self.assertEqual(cards.read(model), {**wanted, "sha256": digest})

    def test_what_is_not_there_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder, "m.onnx")
            with self.assertRaisesRegex(Refused, "m.toml is not there"):
                cards.read(model)
            model.with_suffix(".toml").write_text("name = ")
            with self.assertRaisesRegex(Refused, "is not TOML"):
                cards.read(model)
            model.with_suffix(".toml").write_text('name = "a"\nsize = 3\n')
            with self.assertRaisesRegex(Refused, "missing input, output, channels, mean, std"):
                cards.read(model)
            with self.assertRaisesRegex(Refused, "name a folder of frames"):
                cards.images(folder)

    def test_images_are_prepared_as_the_runtime_prepares_them(self):
        for case in json.loads((GOLDEN / "cases.json").read_text()):
            wanted = np.fromfile(GOLDEN / f"{case['name']}.f32", "<f4").reshape(1, 3, case["side"], case["side"])
            found = cards.prepared(GOLDEN / f"{case['name']}.png", {**case, "size": case["side"]})
            np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=case["name"])

    def test_exposure_brings_the_mean_to_the_level(self):
        card = {"size": 32, "channels": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1], "exposure": 0.3}
        self.assertAlmostEqual(float(cards.prepared(GOLDEN / "scene.png", card).mean()), 0.3, places=3)

    def test_images_are_evenly_spaced(self):
        everything = cards.images(GOLDEN)
        self.assertEqual(everything, sorted(everything))
        self.assertEqual(cards.images(GOLDEN, 2), [everything[0], everything[len(everything) // 2]])
        self.assertEqual(cards.images(GOLDEN, 99), everything)


class Labelled(unittest.TestCase):
    def test_votes_are_weighted_by_similarity(self):
        # As in src/knn.rs: at k = 3 the nearest one's exp(1 / 0.07) outweighs two of at most exp(0.8 / 0.07).
        gallery = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        for k in (1, 3):
            found = labelled.neighbours(gallery, ["a", "b", "b", "b"], np.array([[2.0, 0.0], [0.0, 3.0]]), k)
            self.assertEqual(found, ["a", "b"])
        self.assertEqual(labelled.share(["a", "b"], ["a", "c"]), 0.5)

    def test_centring_shows_what_a_common_mean_hides(self):
        random = np.random.default_rng(1)
        rows = random.normal(size=(40, 8)) + 100
        other = rows[::-1]
        plain = (labelled.unit(rows) * labelled.unit(other)).sum(1)
        self.assertGreater(plain.min(), 0.99)
        self.assertLess(labelled.centred_cosines(other, rows).mean(), 0.5)
        np.testing.assert_allclose(labelled.centred_cosines(rows, rows), 1)


if __name__ == "__main__":
    unittest.main()
