"""Checkpoint to ONNX: the encoder without its projection, `[n, d]`, or of CPC the grid of cells, `[n, 7, 7, d]`."""

import copy
import hashlib
import pathlib

import torch

import methods
import networks

OPSET = 13


def encoder_of(path):
    """The encoder in a checkpoint, in evaluation mode, and the method that it was trained by."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if "method" not in saved:
        raise SystemExit(f"{path}: not a checkpoint of this tool; tools/export_encoder.py reads those of others")
    method = methods.METHODS[saved["method"]]
    net = networks.with_norms(networks.encoder(saved["arch"]), saved["given"]["norm"], saved["method"])
    start = f"{method.prefix}{method.trunk}."
    weights = {k.removeprefix(start): v for k, v in saved["state_dict"].items() if k.startswith(start)}
    net.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})
    return net.eval(), saved["method"]


def blended(net, start, share):
    """Brings the weights of `net` to `start` + `share` * (trained - start).

    Between a start and what was fine-tuned from it the mean of the weights often keeps more of the first and gains more
    of the second than either (Wortsman et al. 2022, 2109.01903, "WiSE-FT").
    """
    first = copy.deepcopy(net)
    networks.load(first, start)
    there = first.state_dict()
    net.load_state_dict({
        k: torch.lerp(there[k], v, share) if v.is_floating_point() else v for k, v in net.state_dict().items()
    })


def export(checkpoint, out, start=None, share=1.0):
    net, method = encoder_of(checkpoint)
    if start:
        blended(net, start, share)
    grid = method == "cpc"
    model, side = (networks.PatchGrid(net), 256) if grid else (net, 224)
    axes = {0: "n"} if grid else {0: "n", 2: "h", 3: "w"}
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, side, side),),
        out,
        input_names=["image"],
        output_names=["features"],
        dynamic_axes={"image": axes, "features": {0: "n"}},
        opset_version=OPSET,
        dynamo=False,
    )
    print(f"{out}: sha-256 {hashlib.sha256(pathlib.Path(out).read_bytes()).hexdigest()}")
