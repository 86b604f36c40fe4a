"""What the channels of a network's maps hold: largest values and mean maps, over frames."""
import numpy as np
from onnx import numpy_helper

from . import latents

MAPS = ("Conv", "Clip", "Relu", "Add")


def constants(model):
    """Weights and constants of a graph by name."""
    found = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def attribute(node, name, default):
    for a in node.attribute:
        if a.name == name:
            return a.i if a.type == a.INT else list(a.ints)
    return default


def measured(model, feeds, name):
    """Largest absolute value of each channel, and the mean map `[d, h, w]`, of every 4-D map that a convolution or its
    neighbours give: two dictionaries. `feeds`: tensors for the input `name`.
    """
    names = [node.output[0] for node in model.graph.node if node.op_type in MAPS]
    running = latents.session(model, names)
    largest, sums = {}, {name: 0.0}
    for feed in feeds:
        sums[name] = sums[name] + feed[0].astype(np.float64)
        for tensor, value in zip(names, running.run(names, {name: feed}), strict=True):
            if value.ndim != 4:
                continue
            peak = np.abs(value[0]).reshape(value.shape[1], -1).max(1)
            largest[tensor] = np.maximum(largest.get(tensor, 0), peak)
            sums[tensor] = sums.get(tensor, 0.0) + value[0].astype(np.float64)
    return largest, {tensor: total / len(feeds) for tensor, total in sums.items()}
