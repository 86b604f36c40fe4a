"""Makes an int8 encoder out of a float32 one, and says what it costs and gains.

    python tools/quantize.py models/mobilenetv2.onnx --frames data/objects/stream --data data/objects --out m-int8.onnx
    python tools/quantize.py m.onnx --measure m-int8.onnx --data DATA --sizes 96 160 224

Frames: a folder of images such as the encoder will see; labels are not needed. --data (repeatable): a labelled folder with
gallery/CLASS/* and query/CLASS/*, on which latents of both are compared after centring, and nearest neighbours by labels.
Times are of one thread, both models in turns. The card goes beside the file and names the float32 model as its reference.
Exit codes: 0 done, 2 usage, 3 refused. Needs the packages of tools/requirements.txt (--tune: requirements-torch.txt). See
docs/quantization.md.
"""
import argparse
import logging
import os
import pathlib
import sys
import time

import numpy as np
import onnx
import onnxruntime

from encoders import Refused, cards, labelled, latents, quantised


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("model", type=pathlib.Path, help="the float32 encoder; its card lies beside it")
    say("--frames", type=pathlib.Path, action="append", help="folder of images to calibrate on (repeatable)")
    say("--count", type=int, default=100, help="how many of each folder (default 100)")
    say("--out", type=pathlib.Path, help="the int8 encoder to write, in the folder of the float32 one")
    say("--flavour", default="cpu", choices=list(quantised.FLAVOURS), help="for which provider (default cpu)")
    say("--reduce-range", action="store_true", help="weights of 7 bits: for x86 without VNNI, whose sums overflow")
    say("--tune", type=int, default=0, metavar="STEPS", help="fit weights to 8 bits, on all of --frames; needs PyTorch")
    say("--measure", type=pathlib.Path, help="write nothing: compare the float32 model with this one")
    say("--data", type=pathlib.Path, action="append", default=[], help="labelled folder to compare on")
    say("--sizes", type=int, nargs="+", help="sides to take times at, pixels (default: the card's)")
    say("--rounds", type=int, default=100, help="inferences of each, in turns (default 100)")
    given = parser.parse_args(argv)
    if bool(given.measure) == bool(given.out):
        parser.error("say --out (and --frames) to make an int8 encoder, or --measure to compare with one")
    if given.out and not given.frames:
        parser.error("--out needs --frames: images to calibrate on")
    if given.tune < 0 or (given.tune and (given.flavour != "cpu" or given.reduce_range)):
        parser.error("--tune takes a number of steps, and simulates the flavour cpu with 8 bits, no other")
    if given.out and (given.out.suffix != ".onnx" or given.out.resolve().parent != given.model.resolve().parent):
        parser.error(f"--out {given.out}: must end in .onnx and lie beside {given.model}, which its card names")
    return given


def make(given, card):
    frames = [image for folder in given.frames for image in cards.images(folder, given.count)]
    tune = tuning(given, card) if given.tune else None
    scaled = quantised.quantise(given.model, card, frames, given.out, given.flavour, given.reduce_range, tune)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB, calibrated on {len(frames)} frames, {scaled} maps equalised")
    how = f"{given.flavour}, tuned for {given.tune} steps" if given.tune else given.flavour
    more = {
        "name": given.out.stem,
        "source": f"{given.model.name} in int8 by tools/quantize.py ({how}); {card['source']}",
        "reference": given.model.name,
        "reference_sha256": cards.sha256(given.model),
    }
    path = cards.write(given.out, {**card, **more}, f"{given.model.name} in int8, static QDQ for {given.flavour}.")
    print(f"card {path}; next: afterimage check --encoder {given.out}")


def tuning(given, card):
    try:
        from encoders import tune
    except ImportError as error:
        raise Refused(f"--tune needs PyTorch (tools/requirements-torch.txt): {error}") from error
    frames = [image for folder in given.frames for image in cards.images(folder)]

    def say(text):
        print(text, flush=True)

    return lambda network, reference: tune.tune(network, reference, card, frames, given.tune, say=say)


def agreement(models, card, folder):
    """Prints how near the latents of both models are, and nearest neighbours of both."""
    (gallery, labels), (queries, wanted) = labelled.folder(folder)
    split = [np.split(latents.of_images(m, card, gallery + queries), [len(gallery)]) for m in models]
    cosines = labelled.centred_cosines(*(np.concatenate(rows) for rows in reversed(split)))
    print(
        f"{folder}: {len(queries)} queries, {len(gallery)} in the gallery; centred cosine to float32: mean "
        f"{cosines.mean():.4f}, 5 % below {np.quantile(cosines, 0.05):.4f}, least {cosines.min():.4f}"
    )
    for k in (1, 5):
        voted = [labelled.neighbours(g, labels, q, k) for g, q in split]
        shares = [100 * labelled.share(found, wanted) for found in voted]
        print(
            f"  {k}-NN: float32 {shares[0]:.1f} %, int8 {shares[1]:.1f} % ({shares[1] - shares[0]:+.1f} points); both vote "
            f"alike for {100 * labelled.share(*voted):.1f} %"
        )


def times(models, card, size, rounds):
    """Prints the time of one inference of each, in milliseconds."""
    image = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    names = latents.tensors(card)
    running = [latents.session(model, names) for model in models]
    taken = np.empty((rounds, len(running)))
    for row in taken:
        for i, one in enumerate(running):
            start = time.perf_counter()
            one.run(names, {card["input"]: image})
            row[i] = 1e3 * (time.perf_counter() - start)
    middle, best = np.median(taken, 0), taken.min(0)
    print(
        f"{size} x {size}: float32 {middle[0]:.2f} ms (best {best[0]:.2f}), int8 {middle[1]:.2f} ms (best {best[1]:.2f}): "
        f"{middle[0] / middle[1]:.2f} times as fast (best {best[0] / best[1]:.2f}; median of pairs "
        f"{np.median(taken[:, 0] / taken[:, 1]):.2f})"
    )


def main(argv=None):
    given = arguments(argv)
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser's hints
    card = cards.read(given.model)
    if given.out:
        make(given, card)
    models = [onnx.load(path) for path in (given.model, given.measure or given.out)]
    print(f"ONNX Runtime {onnxruntime.__version__}, one thread of {os.cpu_count()}")
    for size in given.sizes or [card["size"]]:
        times(models, card, size, given.rounds)
    for folder in given.data:
        agreement(models, card, folder)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        print(f"quantize: {refused}", file=sys.stderr)
        sys.exit(3)
