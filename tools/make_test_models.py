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


def save(folder, name, nodes, weights, outputs, shape=INPUT, kind=TensorProto.FLOAT, check=True, kind_out=None,
         also=(), opset=OPSET, ir=IR):
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(*value) for value in [("image", kind, shape), *also]],
        [helper.make_tensor_value_info(n, kind_out or kind, s) for n, s in outputs], weights,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="afterimage tests")
    if check:
        onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    (folder / f"{name}.onnx").write_bytes(data)
    print(f"{name}.onnx: {len(data)} bytes")
    return data


def scenes(count, side):
    """Prepared images of simple scenes, [count, 3, side, side]: a gradient and a box each."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:side, 0:side] / side
    images = []
    for _ in range(count):
        colour, slope, box = random.normal(0, 1, (2, 3)), random.normal(0, 1, (2, 3)), random.integers(0, side // 2, 2)
        image = colour[0][:, None, None] + slope[0][:, None, None] * x + slope[1][:, None, None] * y
        image[:, box[0]:box[0] + side // 3, box[1]:box[1] + side // 3] = colour[1][:, None, None]
        images.append(image.astype(np.float32))
    return np.stack(images)


def quantised(nodes, weights, tensors, outputs):
    """The model in 8 bits: weights symmetric and by output channel, `tensors` by the range that they have on scenes."""
    value = helper.make_tensor_value_info
    probe = helper.make_graph(
        nodes, "probe", [value("image", TensorProto.FLOAT, INPUT)],
        [value(t, TensorProto.FLOAT, None) for t in tensors if t != "image"], weights,
    )
    probe = helper.make_model(probe, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    evaluator, images = onnx.reference.ReferenceEvaluator(probe), scenes(16, 32)
    seen = dict(zip(evaluator.output_names, evaluator.run(None, {"image": images})))
    seen["image"] = images
    new_nodes, new_weights, by_name = [], [], {w.name: w for w in weights}

    def pair(name, scale, zero, kind, axis=None):
        more = {} if axis is None else {"axis": axis}
        new_weights.append(numpy_helper.from_array(np.asarray(scale, np.float32), f"{name}.scale"))
        new_weights.append(numpy_helper.from_array(np.asarray(zero, kind), f"{name}.zero"))
        return [f"{name}.scale", f"{name}.zero"], more

    def tensor(name):
        low, high = min(float(seen[name].min()), 0.0), max(float(seen[name].max()), 0.0)
        scale = (high - low) / 255
        by, _ = pair(name, scale, round(-low / scale), np.uint8)
        new_nodes.append(helper.make_node("QuantizeLinear", [name] + by, [f"{name}.q"]))
        new_nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q"] + by, [f"{name}.d"]))

    for name in (t for t in tensors if t == "image"):
        tensor(name)
    for node in nodes:
        inputs = [f"{i}.d" if i in tensors else i for i in node.input]
        if node.op_type == "Conv":
            weight = numpy_helper.to_array(by_name[node.input[1]])
            scale = np.abs(weight).max((1, 2, 3)) / 127
            whole = np.round(weight / scale[:, None, None, None]).astype(np.int8)
            by, axis = pair(node.input[1], scale, np.zeros(len(scale)), np.int8, 0)
            new_weights.append(numpy_helper.from_array(whole, f"{node.input[1]}.q"))
            new_nodes.append(helper.make_node("DequantizeLinear", [f"{node.input[1]}.q"] + by, [f"{node.input[1]}.d"], **axis))
            inputs[1] = f"{node.input[1]}.d"
            new_weights.append(by_name[node.input[2]])
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.input[:] = inputs
        new_nodes.append(copy)
        for output in node.output:
            if output in tensors:
                tensor(output)
    return new_nodes, new_weights, outputs


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

    # The same in 8 bits (QDQ), and the same with the kernels of its second layer partly mixed up: both under the card of another
    # file, so they have none of their own.
    save(
        folder, "tiny_int8",
        *quantised(one + two + pooled("grid8", "latent"), one_weights + two_weights, ["image", "grid4", "grid8"],
                   [("latent", ["n", 32])]),
    )
    kernels = numpy_helper.to_array(two_weights[0])
    mixed = [numpy_helper.from_array((0.7 * kernels + 0.3 * kernels[:, ::-1]).astype(np.float32), two_weights[0].name), two_weights[1]]
    save(folder, "tiny_damaged", one + two + pooled("grid8", "latent"), one_weights + mixed, [("latent", ["n", 32])])
    # A newer opset and a newer format than any library knows, an operator that none has, and two inputs.
    plain = pooled("image", "latent")
    save(folder, "opset", plain, [], [("latent", ["n", 3])], check=False, opset=99)
    save(folder, "format", plain, [], [("latent", ["n", 3])], check=False, ir=99)
    unheard = [helper.make_node("Unheard", ["image"], ["heard"])] + pooled("heard", "latent")
    save(folder, "operator", unheard, [], [("latent", ["n", 3])], check=False)
    save(folder, "two_inputs", plain, [], [("latent", ["n", 3])], also=[("mask", TensorProto.FLOAT, ["n"])])
    # Images of 8-bit integers, images with the channels last.
    cast = [helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT)]
    save(folder, "bytes", cast + pooled("floats", "latent"), [], [("latent", ["n", 3])], kind=TensorProto.UINT8,
         kind_out=TensorProto.FLOAT)
    turned = [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])]
    save(folder, "channels_last", turned + pooled("turned", "latent"), [], [("latent", ["n", 3])],
         shape=["n", "h", "w", 3])
    # Only the shape that the file declares is odd: 64 pixels high, any width.
    save(folder, "tall", plain, [], [("latent", ["n", 3])], shape=["n", 3, 64, "w"])
    # Asks for some 40 TB of memory in its only layer.
    huge = [
        helper.make_node("Expand", ["image", "sizes"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"], axes=[0, 3, 4], keepdims=0),
    ] + [helper.make_node("Flatten", ["mean"], ["latent"], axis=1)]
    sizes = numpy_helper.from_array(np.array([100_000_000, 1, 3, 32, 32], np.int64), "sizes")
    save(folder, "huge", huge, [sizes], [("latent", [1, 3])], check=False)

    small, small_weights = convolution(random, "one", "image", "grid", 4, 4, 3, 4)
    # Two outputs: a vector and the grid it is the mean of.
    both = [("grid", ["n", 4, "gh", "gw"]), ("latent", ["n", 4])]
    save(folder, "two_outputs", small + pooled("grid", "latent"), small_weights, both)
    # Takes one image of 32 x 32 and nothing else.
    save(folder, "fixed", small + pooled("grid", "latent"), small_weights, [("latent", [1, 4])], shape=[1, 3, 32, 32])
    # The same with constants of one image: reshapes, which can take more all the same, and a token, which cannot.
    target, one_image = numpy_helper.from_array(np.array([1, 4], np.int64), "target"), [1, 3, 32, 32]
    reshapes = [
        helper.make_node("Constant", [], ["square"], value=numpy_helper.from_array(np.array([1, 2, -1], np.int64))),
        helper.make_node("Reshape", ["mean", "square"], ["two"]),
        helper.make_node("Reshape", ["two", "target"], ["latent"]),
    ]
    save(folder, "reshaped", small + pooled("grid", "flat")[:1] + reshapes, small_weights + [target],
         [("latent", [1, 4])], shape=one_image)
    token = [
        helper.make_node("Expand", ["token", "target"], ["tokens"], name="tokens"),
        helper.make_node("Concat", ["flat", "tokens"], ["latent"], axis=1),
    ]
    save(folder, "token", small + pooled("grid", "flat") + token,
         small_weights + [constant("token", [1, 2, 3, 4]), target], [("latent", [1, 8])], shape=one_image)
    # Mixes the images of a batch, without a word.
    mixed = [
        helper.make_node("ReduceMax", ["flat"], ["all"], axes=[0], keepdims=1),
        helper.make_node("Add", ["flat", "all"], ["latent"]),
    ]
    save(folder, "mixed", small + pooled("grid", "flat") + mixed, small_weights, [("latent", ["n", 4])])
    # A value that is beyond 16-bit floats.
    wide = [helper.make_node("Conv", ["grid", "wide"], ["wider"])] + pooled("wider", "latent")
    save(folder, "large", small + wide, small_weights + [constant("wide", np.eye(4).reshape(4, 4, 1, 1) * 70000)],
         [("latent", ["n", 4])])
    # The same far from the end, and made small again: its first convolutions in 32 bits are enough.
    factors = [70000, 1 / 70000, 1, 1, 1, 1, 1, 1]
    deep = [helper.make_node("Conv", [f"d{i}" if i else "grid", f"by{i}"], [f"d{i + 1}"]) for i in range(len(factors))]
    by = [constant(f"by{i}", np.eye(4).reshape(4, 4, 1, 1) * factor) for i, factor in enumerate(factors)]
    save(folder, "deep", small + deep + pooled("d8", "latent"), small_weights + by, [("latent", ["n", 4])])
    # A little transformer-like model    # The same far from the end, and made small again: its first convolutions in 32 bits are enough.
    factors = [70000, 1 / 70000, 1, 1, 1, 1, 1, 1]
    deep = [helper.make_node("Conv", [f"d{i}" if i else "grid", f"by{i}"], [f"d{i + 1}"]) for i in range(len(factors))]
    by = [constant(f"by{i}", np.eye(4).reshape(4, 4, 1, 1) * factor) for i, factor in enumerate(factors)]
    save(folder, "deep", small + deep + pooled("d8", "latent"), small_weights + by, [("latent", ["n", 4])])
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
