"""int8: the mathematics of equalisation and bias correction, latents as the runtime makes them, and the script as a whole."""
import contextlib
import io
import json
import pathlib
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .common import ROOT
from encoders import cards, channels, equalise, labelled, latents
import quantize

DATA = ROOT / "tests" / "data"
FRAMES = ROOT / "data" / "objects" / "query"


def network(random):
    """Expansion, depthwise convolution and projection twice, with a sum, as MobileNetV2 has them. Channels differ by 100."""
    nodes, weights = [], []

    def convolution(source, target, inputs, outputs, kernel=1, group=1, clip=True):
        w = random.normal(0, 1 / np.sqrt(inputs / group * kernel**2), (outputs, inputs // group, kernel, kernel))
        w *= 10 ** random.uniform(-1, 1, (outputs, 1, 1, 1))
        for name, value in ((f"{target}.w", w), (f"{target}.b", random.normal(0, 0.3, outputs))):
            weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        made = f"{target}.conv" if clip else target
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{target}.w", f"{target}.b"], [made], kernel_shape=[kernel] * 2, pads=pads, group=group
            )
        )
        if clip:
            nodes.append(helper.make_node("Clip", [made, "zero", "six"], [target]))

    weights += [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0), ("six", 6))]
    convolution("image", "stem", 3, 8, 3, clip=False)
    for block, source in (("a", "stem"), ("b", "a")):
        convolution(source, f"{block}.wide", 8, 24)
        convolution(f"{block}.wide", f"{block}.deep", 24, 24, 3, 24)
        convolution(f"{block}.deep", f"{block}.thin", 24, 8, clip=False)
        nodes.append(helper.make_node("Add", [source, f"{block}.thin"], [block]))
    convolution("b", "last", 8, 16)
    nodes += [helper.make_node("GlobalAveragePool", ["last"], ["mean"]), helper.make_node("Flatten", ["mean"], ["latent"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", 16])], weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model, names, feed):
    return latents.session(model, names).run(names, {"image": feed})


def rounded(model):
    """`model` with weights rounded to 8 bits a channel."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for weight in copy.graph.initializer:
        w = numpy_helper.to_array(weight)
        if w.ndim == 4 and not weight.name.endswith("factor"):
            step = np.abs(w).reshape(len(w), -1).max(1).reshape(-1, 1, 1, 1) / 127
            weight.CopyFrom(numpy_helper.from_array((np.round(w / step) * step).astype(np.float32), weight.name))
    return copy


class Mathematics(unittest.TestCase):
    def setUp(self):
        random = np.random.default_rng(3)
        self.model = network(random)
        self.feeds = [random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32) for _ in range(16)]
        self.before = onnx.ModelProto()
        self.before.CopyFrom(self.model)

    def test_equalising_changes_nothing_that_is_computed_and_evens_channels_out(self):
        largest, _ = channels.measured(self.model, self.feeds, "image")
        # One group each for stem with a and b and their thin maps, wide a, deep a, wide b, deep b, last.
        self.assertEqual(equalise.equalise(self.model, largest, {"a.wide"}), 6)
        onnx.checker.check_model(self.model)
        for feed in self.feeds:
            names = ["latent", "a.wide", "last"]
            for old, new in zip(run(self.before, names, feed), run(self.model, names, feed), strict=True):
                np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
        after, _ = channels.measured(self.model, self.feeds, "image")
        # Before the depthwise convolution every channel that is alive has the same largest value.
        self.assertGreater(largest["a.wide"].max(), 5 * largest["a.wide"][largest["a.wide"] > 0].min())
        alive = after["a.wide/equalised"][largest["a.wide"] > largest["a.wide"].max() / equalise.MOST]
        np.testing.assert_allclose(alive, alive.max(), rtol=1e-4)

    def test_corrected_biases_keep_the_means_of_rounded_weights(self):
        _, wanted = channels.measured(self.model, self.feeds, "image")
        equalise.correct_biases(self.model, wanted)

        def error(model):
            # The map of the first convolution: what it reads is not rounded, so its mean is kept exactly.
            found = channels.measured(model, self.feeds, "image")[1]["stem"].mean((1, 2))
            return np.abs(found - wanted["stem"].mean((1, 2))).max()

        self.assertGreater(error(rounded(self.before)), 1e-4)
        self.assertLess(error(rounded(self.model)), 1e-6)


class Latents(unittest.TestCase):
    def test_taps_are_joined_as_in_the_runtime(self):
        golden = json.loads((DATA / "taps.json").read_text())
        side = golden["side"]
        plane, y, x = np.mgrid[0:3, 0:side, 0:side]
        image = (((3 * x + 2 * y + 5 * plane) % (2 * side)) / side - 1).astype(np.float32)[None]
        model = onnx.load(DATA / "taps.onnx")
        for case in golden["cases"]:
            card = {"output": "latent", "taps": case["taps"]}
            names = latents.tensors(card)
            found = dict(zip(names, latents.session(model, names).run(names, {"image": image}), strict=True))
            np.testing.assert_allclose(latents.joined(found, card), case["latent"], atol=1e-6, err_msg=str(case["taps"]))


class Script(unittest.TestCase):
    def test_the_bundled_encoder_in_int8(self):
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            model, out = folder / "m.onnx", folder / "m-int8.onnx"
            for suffix in (".onnx", ".toml"):
                model.with_suffix(suffix).write_bytes((ROOT / "models" / f"mobilenetv2{suffix}").read_bytes())
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                quantize.main([str(model), "--out", str(out), "--frames", str(FRAMES), "--count", "16", "--rounds", "3"])
            self.assertIn("maps equalised", said.getvalue())
            self.assertLess(out.stat().st_size, 0.4 * model.stat().st_size)
            before, after = cards.read(model), cards.read(out)
            self.assertEqual((after["reference"], after["reference_sha256"]), ("m.onnx", before["sha256"]))
            same = ("taps", "size", "mean", "output", "exposure", "licence")
            self.assertEqual([after[key] for key in same], [before[key] for key in same])
            images = cards.images(FRAMES, 24)
            rows = [latents.of_images(onnx.load(path), before, images) for path in (out, model)]
            # Without equalisation and correction it is near 0.6.
            self.assertGreater(labelled.centred_cosines(*rows).mean(), 0.9)

    def test_for_tensorrt_biases_stay_and_zero_points_are_zero(self):
        with tempfile.TemporaryDirectory() as place:
            model, out = pathlib.Path(place, "tiny.onnx"), pathlib.Path(place, "t.onnx")
            for suffix in (".onnx", ".toml"):
                model.with_suffix(suffix).write_bytes((DATA / f"tiny{suffix}").read_bytes())
            with contextlib.redirect_stdout(io.StringIO()):
                quantize.main(
                    [str(model), "--out", str(out), "--frames", str(FRAMES), "--count", "4", "--rounds", "1",
                     "--flavour", "tensorrt"]
                )
            values = channels.constants(onnx.load(out))
            zeros = [v for name, v in values.items() if name.endswith("_zero_point")]
            self.assertTrue(zeros and all(not v.any() and v.dtype == np.int8 for v in zeros))
            self.assertTrue(any(name.endswith("bias") and v.dtype == np.float32 for name, v in values.items()))


if __name__ == "__main__":
    unittest.main()
