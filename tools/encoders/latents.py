"""The latent that the runtime makes of a model and its card, here with numpy (`src/encoder/latent.rs` is the original).

With taps `t` of tensors `x_t` it is `unit([unit(pool_t(x_t)) for each t])`; a grid is laid out in one row.
"""
import numpy as np
import onnx
import onnxruntime

from . import Refused, cards

GEM_FLOOR = 1e-6


def taps(card):
    """Pairs (tensor, pooling) of a card; the output as it is where it has none."""
    texts = card.get("taps") or ["output:as-is"]
    split = [("output:as-is" if text == "output" else text).rpartition(":") for text in texts]
    return [(card["output"] if tensor == "output" else tensor, pooling) for tensor, _, pooling in split]


def session(model, wanted, threads=1):
    """A session on the CPU that computes the tensors `wanted` of `model` (a ModelProto) and nothing else."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.extend(onnx.helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None) for t in wanted)
    needed, nodes = set(wanted), []
    for node in reversed(cut.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    missing = [t for t in wanted if not any(t in node.output for node in nodes)]
    if missing:
        raise Refused(f"the model has no tensor {', '.join(missing)}")
    del cut.graph.node[:]
    cut.graph.node.extend(reversed(nodes))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])


def tensors(card):
    """The tensors that the latent is made of, each once."""
    return list(dict.fromkeys(tensor for tensor, _ in taps(card)))


def of_images(model, card, images):
    """`[n, d]`: latents of image files."""
    names = tensors(card)
    running = session(model, names)
    rows = []
    for image in images:
        found = dict(zip(names, running.run(names, {card["input"]: cards.prepared(image, card)}), strict=True))
        rows.append(joined(found, card))
    return np.stack(rows)


def joined(found, card):
    """The latent of one image out of the tensors `found`."""
    if card.get("kind") == "grid" or not card.get("taps"):
        return found[card["output"]][0].astype(np.float64).ravel()
    parts = [_unit(_pooled(found[tensor][0].astype(np.float64), pooling, card)) for tensor, pooling in taps(card)]
    return _unit(np.concatenate(parts))


def _unit(x):
    return x / max(np.linalg.norm(x), 1e-12)


def _pooled(x, pooling, card):
    if pooling == "as-is":
        return x
    if pooling == "cls":
        return x[0]
    if pooling == "tokens":
        return x[1:].mean(0)
    if x.ndim == 2:
        return x.mean(0)
    cells = x.reshape(len(x), -1).T if card.get("layout", "dhw") == "dhw" else x.reshape(-1, x.shape[2])
    if pooling == "max":
        return cells.max(0)
    if pooling == "mean":
        return cells.mean(0)
    power = float(pooling.removeprefix("gem"))
    return (np.maximum(cells, GEM_FLOOR) ** power).mean(0) ** (1 / power)
