"""ONNX from a network, and whether it computes what PyTorch computes."""
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime
import torch

from . import Refused, cards

OPSET = 17  # LayerNormalization as one node; ONNX Runtime 1.23 takes up to 23
INPUT, OUTPUT = "image", "features"
LEAST_AGREEMENT = 1e-3


def save(module, path, size, fixed):
    """Writes `module` (one of `outputs`) for images of `size` pixels, with any number of them and, unless `fixed`, other
    sizes too. Batch normalisation is folded into the convolutions.
    """
    axes = {INPUT: {0: "n"}, OUTPUT: {0: "n"}}
    if not fixed:
        axes[INPUT] |= {2: "h", 3: "w"}
        if module.kind == "grid":
            axes[OUTPUT] |= {2: "gh", 3: "gw"}
    with warnings.catch_warnings():
        # The older exporter: its graphs are smaller and need no other package. It warns of its age, and of sizes that
        # become constants, which is what `fixed` says.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, size, size),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path))


def compare(module, path, card, frames):
    """Runs both on image files: largest error, the same relative to the largest value, and least cosine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst, largest, least = 0.0, 0.0, 1.0
    for frame in frames:
        image = cards.prepared(frame, card)
        with torch.no_grad():
            wanted = module(torch.from_numpy(image)).numpy().astype(np.float64)
        found = session.run([OUTPUT], {INPUT: image})[0]
        if found.shape != wanted.shape:
            raise Refused(f"{path} gives {list(found.shape)}, PyTorch {list(wanted.shape)}")
        if not np.isfinite(wanted).all():
            raise Refused(f"{frame}: the network gives values that are not finite; are the weights whole?")
        worst = max(worst, float(np.abs(found - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
        norms = np.linalg.norm(found) * np.linalg.norm(wanted)
        least = min(least, float((found * wanted).sum() / norms)) if norms > 0 else 0.0
    return worst, worst / largest if largest > 0 else float("inf"), least


def agree(module, path, card, frames):
    """As `compare`, in words; removes the file and raises `Refused` beyond `LEAST_AGREEMENT`."""
    worst, relative, least = compare(module, path, card, frames)
    text = (
        f"ONNX Runtime {onnxruntime.__version__} against PyTorch on {len(frames)} frames: largest error {worst:.1e} "
        f"({relative:.1e} of the largest value), least cosine {least:.7f}"
    )
    if relative > LEAST_AGREEMENT:
        pathlib.Path(path).unlink()
        raise Refused(f"{text}; at most {LEAST_AGREEMENT} of the largest value is allowed, {path} was removed")
    return text
