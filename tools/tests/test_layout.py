"""int8: what is laid out anew for speed computes the same."""
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from encoders import channels, latents, layout


def stem(size, stride=2, readers=1):
    """One convolution of 3 channels, or several."""
    random = np.random.default_rng(size)
    weights = [numpy_helper.from_array(random.normal(0, 1, (5, 3, size, size)).astype(np.float32), "w")]
    nodes = [
        helper.make_node("Conv", ["image", "w"], [f"y{i}"], strides=[stride] * 2, pads=[size // 2] * 4, kernel_shape=[size] * 2)
        for i in range(readers)
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, ["n", 5, "a", "b"])], weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model, wanted, image):
    return latents.session(model, [wanted]).run([wanted], {"image": image})[0]


class Blocks(unittest.TestCase):
    def test_a_first_convolution_over_blocks_computes_the_same(self):
        image = np.random.default_rng(1).normal(0, 1, (1, 3, 32, 48)).astype(np.float32)
        for size in (1, 3, 5, 7):
            model = stem(size)
            before = run(model, "y0", image)
            self.assertEqual(layout.read_blocks(model, {"input": "image", "size": 32}), {"image": "image/blocks"})
            onnx.checker.check_model(model)
            self.assertEqual(model.graph.node[0].op_type, "SpaceToDepth")
            np.testing.assert_allclose(run(model, "y0", image), before, rtol=1e-4, atol=1e-4)

    def test_others_are_left_as_they_are(self):
        card = {"input": "image", "size": 32}
        for model, of in (
            (stem(3, stride=1), card),
            (stem(3, readers=2), card),
            (stem(4), card),
            (stem(3), {**card, "multiple_of": 7}),
            (stem(3), {**card, "input": "pixels"}),
        ):
            before = model.SerializeToString()
            self.assertEqual(layout.read_blocks(model, of), {})
            self.assertEqual(model.SerializeToString(), before)


class Factors(unittest.TestCase):
    def test_a_factor_a_channel_is_part_of_the_way_back_to_float32(self):
        random = np.random.default_rng(2)
        values = {
            "s": np.float32(0.02), "z": np.uint8(120),
            "factor": random.uniform(0.1, 3, (1, 4, 1, 1)).astype(np.float32), "one": np.ones((1, 1, 1, 1), np.float32),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
            helper.make_node("Mul", ["x", "factor"], ["tap"], name="tap/Mul"),
            helper.make_node("Mul", ["image", "one"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        image = random.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
        before = run(model, "tap", image)
        self.assertEqual(layout.fold_factors(model), 1)
        kinds = [n.op_type for n in model.graph.node]
        # The other product has nothing to do with 8 bits, and nobody reads the old way back any more.
        self.assertEqual(kinds, ["QuantizeLinear", "DequantizeLinear", "Mul"])
        self.assertNotIn("factor", channels.constants(model))
        np.testing.assert_allclose(run(model, "tap", image), before, rtol=1e-6)


if __name__ == "__main__":
    unittest.main()
