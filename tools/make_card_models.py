"""Makes some of tests/data/models: forms that encoders come in, small and with random weights.

    python tools/make_card_models.py tests/data/models

Needs (made with): numpy==2.4.6, onnx==1.23.2.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

node, value = helper.make_node, helper.make_tensor_value_info


def main(folder):
    random = np.random.default_rng(3)

    def weight(name, *shape, scale=0.3):
        return numpy_helper.from_array(random.normal(0, scale, shape).astype(np.float32), name)

    def save(name, nodes, inputs, outputs, weights=()):
        graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")

    map_ = [node("Conv", ["x", "W"], ["c"], strides=[4, 4]), node("Relu", ["c"], ["r"])]
    row = [*map_, node("GlobalAveragePool", ["r"], ["g"]), node("Flatten", ["g"], ["f"])]
    vector = [*row, node("MatMul", ["f", "P"], ["y"])]
    image = value("x", T.FLOAT, ["n", 3, 96, 96])
    weights = [weight("W", 8, 3, 4, 4), weight("P", 8, 12)]
    save("f16_out", [*vector, node("Cast", ["y"], ["o"], to=T.FLOAT16)], [image], [value("o", T.FLOAT16, ["n", 12])],
         weights)
    save("out_d_squeezed", [*map_, node("GlobalAveragePool", ["r"], ["g"]), node("Squeeze", ["g"], ["y"])],
         [value("x", T.FLOAT, [1, 3, 96, 96])], [value("y", T.FLOAT, [8])], weights[:1])
    save("video_5d", [node("ReduceMean", ["x"], ["y"], axes=[2, 3, 4], keepdims=0)],
         [value("x", T.FLOAT, ["n", 3, 8, 96, 96])], [value("y", T.FLOAT, ["n", 3])])
    save("grey", [node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
         [value("x", T.FLOAT, ["n", 1, 96, 96])], [value("y", T.FLOAT, ["n", 1])])
    save("labels_only", [*vector, node("ArgMax", ["y"], ["o"], axis=1)], [image], [value("o", T.INT64, ["n", 1])], weights)
    # As Paddle's detectors: two more inputs, of which the names say what they are.
    sums = [node("ReduceSum", [name], [f"{name}_s"], keepdims=0) for name in ("im_shape", "scale_factor")]
    both = node("Mul", ["im_shape_s", "scale_factor_s"], ["s"])
    save("paddle_three_inputs", [*vector, *sums, both, node("Div", ["y", "s"], ["o"])],
         [value("im_shape", T.FLOAT, [1, 2]), value("x", T.FLOAT, [-1, 3, 96, 96]), value("scale_factor", T.FLOAT, [1, 2])],
         [value("o", T.FLOAT, [-1, 12])], weights)
    # Sizes are declared free, and the last layer takes one only.
    flat = node("Flatten", ["r"], ["f"])
    save("fc_wants_96", [*map_, flat, node("MatMul", ["f", "F"], ["y"])], [value("x", T.FLOAT, ["n", 3, "h", "w"])],
         [value("y", T.FLOAT, ["n", 2])], [weights[0], weight("F", 8 * 24 * 24, 2, scale=0.05)])
    # The batch is declared free, and a shape within holds it.
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    save("reshape_holds_batch", [*map_, node("Reshape", ["r", "shape"], ["f"]), node("MatMul", ["f", "F"], ["y"])], [image],
         [value("y", T.FLOAT, ["n", 2])], [weights[0], shape, weight("F", 8 * 24 * 24, 2, scale=0.05)])
    # Of a format in which weights are inputs too, with scores at the end.
    inputs = [image, *(value(w.name, T.FLOAT, list(w.dims)) for w in weights)]
    graph = helper.make_graph([*vector, node("Softmax", ["y"], ["p"], axis=1)], "g", inputs, [value("p", T.FLOAT, ["n", 12])],
                              weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3), folder / "old_format.onnx")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
