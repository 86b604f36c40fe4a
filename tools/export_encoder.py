"""Turns the checkpoint of a training script into an ONNX encoder with its model card.

    python tools/export_encoder.py moco_v2_800ep.pth.tar --arch resnet50 --licence "CC BY-NC 4.0" --out moco.onnx
    python tools/export_encoder.py dinov2_vits14.pth --arch dinov2_vit_small --grid --licence Apache-2.0 --out dino.onnx
    python tools/export_encoder.py cpc.ckpt --arch resnet18 --cpc --licence MIT --out cpc.onnx
    python tools/export_encoder.py --pretrained --arch timm:resnet18.a1_in1k --licence Apache-2.0 --out resnet18.onnx

Heads are left out. A checkpoint whose tensors are not those of the network is refused, with their names. The ONNX file is
compared with PyTorch on real frames. Exit codes: 0 done, 2 usage, 3 refused (nothing is written). `docs/checkpoints.md` goes
through it step by step. Needs the packages of tools/requirements.txt; no GPU.
"""
import argparse
import pathlib
import sys

import torch

from encoders import Refused, cards, checkpoint, export, networks, outputs

FRAMES = pathlib.Path(__file__).parent.parent / "data" / "objects" / "query"


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("checkpoint", nargs="?", help="file of torch.save, or .safetensors")
    say("--out", required=True, type=pathlib.Path, help="the ONNX file; the card goes beside it")
    say("--arch", help="network: a name of tools/encoders/vit.py, torchvision:NAME, timm:NAME (default: the file's `arch`)")
    say("--layout", default="auto", choices=["auto", *checkpoint.LAYOUTS], help="whose checkpoint it is (default: found)")
    say("--momentum", action="store_true", help="the slowly following network of MoCo and solo-learn, not the trained one")
    say("--map", action="append", default=[], metavar="PATTERN=REPLACEMENT", help="rename tensors first, as re.sub does")
    say("--pretrained", action="store_true", help="no checkpoint: the weights that torchvision or timm downloads")
    say("--grid", action="store_true", help="give the last map, or the patch tokens of a ViT, instead of one vector")
    say("--cpc", action="store_true", help="encode overlapping cells by themselves: a grid, as CPC trains it")
    say("--cell", type=int, default=64, help="with --cpc: side of a cell, pixels (default 64)")
    say("--stride", type=int, default=32, help="with --cpc: distance of cells, pixels (default 32)")
    say("--size", type=int, help="side of the image, pixels (default 224; with --cpc 256)")
    say("--mean", type=float, nargs=3, default=cards.IMAGENET_MEAN, help="(default: ImageNet's)")
    say("--std", type=float, nargs=3, default=cards.IMAGENET_STD, help="(default: ImageNet's)")
    say("--bgr", action="store_true", help="the network was trained on blue, green, red")
    say("--fit", default="stretch", choices=["stretch", "crop"], help="how a frame becomes square (default stretch)")
    say("--licence", required=True, help="licence of the weights, for the card")
    say("--source", help="where the weights are from, for the card (default: the file and its SHA-256)")
    say("--frames", type=pathlib.Path, default=FRAMES, help="images to compare on (default: data/objects/query)")
    say("--count", type=int, default=16, help="how many of them (default 16)")
    given = parser.parse_args(argv)
    if bool(given.checkpoint) == given.pretrained:
        parser.error("name a checkpoint, or say --pretrained")
    if given.pretrained and not given.arch:
        parser.error("--pretrained needs --arch")
    if given.grid and given.cpc:
        parser.error("--grid and --cpc: one of them")
    if given.out.suffix != ".onnx":
        parser.error(f"--out {given.out}: must end in .onnx")
    if not all("=" in pair for pair in given.map):
        parser.error("--map: write PATTERN=REPLACEMENT, for example '^online\\.net\\.=backbone.'")
    return given


def architecture(given, found):
    """The name of the network: as given, or as facebookresearch's scripts write it into their files."""
    if given.arch:
        return given.arch
    arch = found.get("arch")
    if not isinstance(arch, str):
        raise Refused("the file does not say which network it is for; name it (--arch)")
    return f"moco_{arch}" if arch.startswith("vit_") else arch


def main(argv=None):
    given = arguments(argv)
    found = {} if given.pretrained else checkpoint.load(given.checkpoint)
    arch = architecture(given, found)
    size = given.size or (256 if given.cpc else 224)
    network = networks.build(arch, given.cell if given.cpc else size, given.pretrained)
    if given.pretrained:
        source = f"{arch} as its library downloads it"
    else:
        renames = [pair.split("=", 1) for pair in given.map]
        matched = networks.fill(network, found, given.layout, given.momentum, renames)
        print(
            f"{given.checkpoint}: {matched.where}; {len(matched.tensors)} tensors taken, {matched.heads} of heads left out, "
            f"{matched.elsewhere} of other networks"
        )
        name = pathlib.Path(given.checkpoint).name
        source = f"{name} (sha-256 {cards.sha256(given.checkpoint)}), {matched.where}"
    if given.cpc:
        module = outputs.patches(network, size, given.cell, given.stride)
    else:
        module = outputs.grid(network, size) if given.grid else outputs.Vector(network)
    step = size if given.cpc else networks.multiple_of(network, size)
    card = {
        "name": given.out.stem,
        "kind": module.kind,
        "layout": module.layout,
        "input": export.INPUT,
        "output": export.OUTPUT,
        "size": size,
        "multiple_of": step,
        "channels": "bgr" if given.bgr else "rgb",
        "mean": list(given.mean),
        "std": list(given.std),
        "fit": given.fit,
        "cell_first": given.cell / 2 if given.cpc else None,
        "cell_step": given.stride if given.cpc else None,
        "source": given.source or f"exported by tools/export_encoder.py from {source}",
        "licence": given.licence,
    }
    frames = cards.images(given.frames, given.count)
    torch.set_grad_enabled(False)
    export.save(module, given.out, size, fixed=step == size)
    print(export.agree(module, given.out, card, frames))
    path = cards.write(given.out, card, f"{arch}, exported by tools/export_encoder.py")
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB; card {path}")
    print(f"next: afterimage check --encoder {given.out}")


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        print(f"export_encoder: {refused}", file=sys.stderr)
        sys.exit(3)
