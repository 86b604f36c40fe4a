"""Makes a convolutional network fit for 8 bits, without training.

Equalisation: a map is quantised with one scale for all its channels, so small channels drown beside large ones. A channel
may be multiplied by `s` where it is made and divided by `s` where it is read, without changing what is computed (Nagel et
al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1); here `s` is
`(largest of all / largest of the channel) ^ a`, from frames. A ReLU6 stays a clip at 6: `s >= 1` and only values above what
any frame has are clipped earlier. Maps that are added have to have the same `s`.

Bias correction (section 4.2): rounding weights `W` to `Wq` moves the mean of a channel by `(Wq - W) * E[x]`; it is taken
from the bias. `E[x]` is the mean map over frames.
"""
import numpy as np
import onnx
from onnx import numpy_helper

from .channels import attribute, constants

PASSES = ("Clip", "Relu")
# Exponents `a`. Before a depthwise convolution the weights have a scale a channel, so full equalisation costs nothing
# there; where a convolution mixes channels, what the map gains its weights lose.
DEPTHWISE, MIXED, LINEAR = 1.0, 0.25, 1.0
MOST = 64.0
LEVELS = 127


def equalise(model, largest, keep):
    """Scales the channels of `model` in place; `largest` is of `channels.measured`. Tensors in `keep`, and those that
    anything but a convolution reads, keep their names and values: they are scaled back. How many maps were scaled.
    """
    values = constants(model)
    weights = {w.name: w for w in model.graph.initializer}
    changed, back = {}, {}

    def weight(name):
        return changed.setdefault(name, values[name].astype(np.float64))

    groups = _groups(model.graph, largest)
    scaled = 0
    for tensors in groups:
        makers = [n for n in model.graph.node if n.output[0] in tensors and not _inside(n, tensors)]
        readers = [n for n in model.graph.node if tensors.intersection(n.input) and not _inside(n, tensors)]
        made = all(n.op_type == "Conv" and n.input[1] in weights for n in makers)
        if not makers or not made or not _clips_at_zero(model.graph, tensors, values):
            continue
        convolutions = [n for n in readers if n.op_type == "Conv" and n.input[1] in weights]
        scale = _scale(model.graph, tensors, convolutions, largest)
        scaled += 1
        for node in makers:
            weight(node.input[1])[:] *= scale[:, None, None, None]
            if len(node.input) > 2:
                weight(node.input[2])[:] *= scale
        for node in convolutions:
            _divide(weight(node.input[1]), attribute(node, "group", 1), scale)
        others = [n for n in readers if n not in convolutions]
        for tensor in tensors.intersection(keep) | {t for n in others for t in n.input if t in tensors}:
            back[tensor] = (1 / scale, {n.output[0] for n in others})
    for name, value in changed.items():
        weights[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    for tensor, (factor, others) in back.items():
        _scale_back(model.graph, tensor, factor, others)
    return scaled


def correct_biases(model, means):
    """Takes from each bias what rounding the weights to 8 bits a channel adds to the mean; `means` is of
    `channels.measured` for this very model.
    """
    values = constants(model)
    weights = {w.name: w for w in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[0] not in means:
            continue
        w = values[node.input[1]].astype(np.float64)
        step = np.abs(w).reshape(len(w), -1).max(1)[:, None, None, None] / LEVELS
        step[step == 0] = 1
        error = np.round(w / step) * step - w
        window = _mean_window(node, means[node.input[0]], w.shape)
        group = attribute(node, "group", 1)
        window = window.reshape(group, w.shape[1], *w.shape[2:]).repeat(len(w) // group, 0)
        bias = values[node.input[2]] - (error * window).sum((1, 2, 3))
        weights[node.input[2]].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))


def _mean_window(node, x, shape):
    """`[c, kh, kw]`: mean over all places of the kernel of what lies under each of its weights."""
    (top, left, bottom, right), (sy, sx) = attribute(node, "pads", [0] * 4), attribute(node, "strides", [1, 1])
    (dy, dx), (kh, kw) = attribute(node, "dilations", [1, 1]), shape[2:]
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    rows, columns = ((x.shape[1] - dy * (kh - 1) - 1) // sy + 1, (x.shape[2] - dx * (kw - 1) - 1) // sx + 1)
    taken = [
        x[:, i * dy :: sy, j * dx :: sx][:, :rows, :columns].mean((1, 2)) for i in range(kh) for j in range(kw)
    ]
    return np.stack(taken, 1).reshape(-1, kh, kw)


def _groups(graph, maps):
    """Sets of maps that must have the same scale: before and after an activation, and what is added."""
    parent = {tensor: tensor for tensor in maps}

    def root(tensor):
        while parent[tensor] != tensor:
            tensor = parent[tensor]
        return tensor

    for node in graph.node:
        if node.op_type in PASSES or node.op_type == "Add":
            joined = [t for t in [*node.input, *node.output] if t in maps]
            for tensor in joined[1:]:
                parent[root(tensor)] = root(joined[0])
    groups = {}
    for tensor in maps:
        groups.setdefault(root(tensor), set()).add(tensor)
    return groups.values()


def _inside(node, tensors):
    """True for activations and sums of which all maps belong to the group."""
    whole = node.op_type in PASSES or (node.op_type == "Add" and tensors.issuperset(node.input))
    return whole and node.output[0] in tensors


def _clips_at_zero(graph, tensors, values):
    """Scaling passes through a clip only where its lower end is 0."""
    clips = [n for n in graph.node if n.op_type == "Clip" and n.output[0] in tensors]
    return all(len(n.input) > 1 and n.input[1] in values and values[n.input[1]] == 0 for n in clips)


def _scale(graph, tensors, readers, largest):
    """The factor of each channel."""
    before = {n.input[0] for n in graph.node if n.op_type in PASSES}
    peaks = np.max([largest[t] for t in tensors if t not in before], 0)
    depthwise = readers and all(attribute(n, "group", 1) == len(peaks) for n in readers)
    clipped = any(n.op_type in PASSES and n.output[0] in tensors for n in graph.node)
    power = DEPTHWISE if depthwise else MIXED if clipped else LINEAR
    return np.where(peaks > 0, np.minimum((peaks.max() / np.maximum(peaks, 1e-12)) ** power, MOST), 1.0)


def _divide(weight, group, scale):
    """Divides the weights `[o, i / group, h, w]` by the scale of the channel that each reads."""
    inputs, outputs = weight.shape[1], len(weight) // group
    for g in range(group):
        weight[g * outputs : (g + 1) * outputs] /= scale[g * inputs : (g + 1) * inputs][None, :, None, None]


def _scale_back(graph, tensor, factor, others):
    """Calls the scaled map by another name, and gives `tensor` its old values by a product."""
    scaled = f"{tensor}/equalised"
    for node in graph.node:
        node.output[:] = [scaled if t == tensor else t for t in node.output]
        if node.output[0] not in others:
            node.input[:] = [scaled if t == tensor else t for t in node.input]
    place = next(i for i, node in enumerate(graph.node) if scaled in node.output)
    name = f"{tensor}/factor"
    graph.initializer.append(numpy_helper.from_array(factor.astype(np.float32).reshape(1, -1, 1, 1), name))
    graph.node.insert(place + 1, onnx.helper.make_node("Mul", [scaled, name], [tensor], name=f"{tensor}/Mul"))
