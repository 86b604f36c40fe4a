"""Makes the small models of tests/data: `tiny.onnx`, a seeded encoder with its card `tiny.toml`, and faulty ones; and
`taps.json`, what numpy finds for taps of `taps.onnx`.

    python tools/make_test_models.py tests/data

Needs (made with): numpy==2.4.6, onnx==1.23.2. The same bytes every time.
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 13, 7
INPUT = ["n", 3, "h", "w"]


def convolution(random, name, source, target, kernel, stride, inputs, outputs):
    """A seeded convolution (He-normal weights, small biases) followed by ReLU: nodes and initializers."""
    weight = random.normal(0, np.sqrt(2 / (inputs * kernel * kernel)), (outputs, inputs, kernel, kernel))
    bias = random.normal(0, 0.1, outputs)
    nodes = [
        helper.make_node(
            "Conv", [source, f"{name}.weight", f"{name}.bias"], [f"{name}.out"],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2],
        ),
        helper.make_node("Relu", [f"{name}.out"], [target]),
    ]
    weights = [
        numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"),
        numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"),
    ]
    return nodes, weights


def pooled(source, target):
    return [
        helper.make_node("GlobalAveragePool", [source], ["mean"]),
        helper.make_node("Flatten", ["mean"], [target], axis=1),
    ]


def constant(name, value):
    return numpy_helper.from_array(np.array(value, np.float32), name)


def save(folder, name, nodes, weights, outputs, shape=INPUT, kind=TensorProto.FLOAT, check=True):
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(n, kind, s) for n, s in outputs], weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="afterimage tests")
    if check:
        onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    (folder / f"{name}.onnx").write_bytes(data)
    print(f"{name}.onnx: {len(data)} bytes")
    return data


def unit(x):
    return x / np.linalg.norm(x)


def pool(x, pooling):
    """One image's tensor as a vector, in float64."""
    x = x.astype(np.float64)[0]
    if pooling == "as-is":
        return x
    if pooling in ("tokens", "cls"):
        return x[1:].mean(0) if pooling == "tokens" else x[0]
    if x.ndim == 2:
        return x.mean(0)
    cells = x.reshape(len(x), -1)
    if pooling == "max":
        return cells.max(1)
    if pooling == "mean":
        return cells.mean(1)
    p = float(pooling.removeprefix("gem"))
    return (np.maximum(cells, 1e-6) ** p).mean(1) ** (1 / p)


def golden_taps(model, side=16):
    """Latents of taps over `model` for the picture that the encoder is tried out with, by numpy."""
    plane, y, x = np.mgrid[0:3, 0:side, 0:side]
    image = (((3 * x + 2 * y + 5 * plane) % (2 * side)) / side - 1).astype(np.float32)[None]
    model = onnx.load_model_from_string(model)
    for name in ("map", "grid", "map_last", "tokens"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    evaluator = onnx.reference.ReferenceEvaluator(model)
    found = dict(zip(evaluator.output_names, evaluator.run(None, {"image": image})))
    cases = []
    for taps in [
        ["output:as-is"], ["map:mean"], ["grid:mean"], ["map:max"], ["map:gem1"], ["map:gem2"], ["map:gem3"],
        ["map:gem2.5"], ["grid:gem3"], ["tokens:mean"], ["tokens:tokens"], ["tokens:cls"],
        ["map:gem3", "tokens:cls", "output:as-is", "map:mean"],
    ]:
        split = [tap.split(":") for tap in taps]
        parts = [unit(pool(found["latent" if t == "output" else t], p)) for t, p in split]
        cases.append({"taps": taps, "latent": unit(np.concatenate(parts)).tolist()})
    grid = found["map_last"][0].astype(np.float64)
    return {"side": side, "cases": cases, "grid": {"shape": grid.shape, "values": grid.ravel().tolist()}}


def main(folder):
    random = np.random.default_rng(7)

    # The test encoder: [n, 3, h, w] -> [n, 32].
    one, one_weights = convolution(random, "one", "image", "grid4", 4, 4, 3, 12)
    two, two_weights = convolution(random, "two", "grid4", "grid8", 3, 2, 12, 32)
    data = save(
        folder, "tiny", one + two + pooled("grid8", "latent"), one_weights + two_weights, [("latent", ["n", 32])]
    )
    card = f'''# A seeded encoder of random weights, for tests only (tools/make_test_models.py).
name = "tiny"
kind = "vector"
input = "image"
output = "latent"
size = 32
multiple_of = 8
channels = "rgb"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
fit = "stretch"
source = "tools/make_test_models.py"
licence = "MIT OR Apache-2.0"
sha256 = "{hashlib.sha256(data).hexdigest()}"
'''
    (folder / "tiny.toml").write_text(card)

    small, small_weights = convolution(random, "one", "image", "grid", 4, 4, 3, 4)
    # Two outputs: a vector and the grid it is the mean of.
    both = [("grid", ["n", 4, "gh", "gw"]), ("latent", ["n", 4])]
    save(folder, "two_outputs", small + pooled("grid", "latent"), small_weights, both)
    # Takes one image of 32 x 32 and nothing else.
    save(folder, "fixed", small + pooled("grid", "latent"), small_weights, [("latent", [1, 4])], shape=[1, 3, 32, 32])
    # A little transformer-like model: a map, tokens (the first, a class token, is the largest of the others), an output.
    tokens = [
        helper.make_node("Relu", ["grid"], ["map"]),
        helper.make_node("Transpose", ["grid"], ["map_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["grid", "rows"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["patches"], perm=[0, 2, 1]),
        helper.make_node("ReduceMax", ["patches"], ["class"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["class", "patches"], ["tokens"], axis=1),
        helper.make_node("Cast", ["map"], ["whole"], to=TensorProto.INT64),
    ]
    rows = numpy_helper.from_array(np.array([0, 4, -1], np.int64), "rows")
    small_nodes = small[:-1] + [helper.make_node("Identity", [small[-1].input[0]], ["grid"])]
    data = save(
        folder, "taps", small_nodes + tokens + pooled("map", "latent"), small_weights + [rows], [("latent", ["n", 4])]
    )
    (folder / "taps.json").write_text(json.dumps(golden_taps(data), indent=1) + "\n")
    # NaN for every image: the logarithm of a negative number.
    nan = [
        helper.make_node("Neg", ["grid"], ["negative"]),
        helper.make_node("Sub", ["negative", "one"], ["below"]),
        helper.make_node("Log", ["below"], ["log"]),
    ]
    one = [constant("one", 1)]
    save(folder, "nan", small + nan + pooled("log", "latent"), small_weights + one, [("latent", ["n", 4])])
    # NaN only for images with a value below -3, which no prepared frame has: the root of value + 3.
    root = [helper.make_node("Add", ["image", "three"], ["above"]), helper.make_node("Sqrt", ["above"], ["root"])]
    save(folder, "root", root + pooled("root", "latent"), [constant("three", 3)], [("latent", ["n", 3])])
    # 16-bit floats in and out.
    save(folder, "half", pooled("image", "latent"), [], [("latent", ["n", 3])], kind=TensorProto.FLOAT16)
    # The output's declared shape says nothing; it turns out to have four dimensions.
    mean = [helper.make_node("GlobalAveragePool", ["image"], ["latent"])]
    save(folder, "undeclared", mean, [], [("latent", None)], check=False)
    # Weights in a second file, which is not there.
    away = [onnx.TensorProto.FromString(w.SerializeToString()) for w in small_weights]
    length = len(away[0].raw_data)
    onnx.external_data_helper.set_external_data(away[0], location="external.bin", offset=0, length=length)
    away[0].ClearField("raw_data")
    save(folder, "external", small + pooled("grid", "latent"), away, [("latent", ["n", 4])], check=False)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
