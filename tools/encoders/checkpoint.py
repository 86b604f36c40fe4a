"""The tensors of a network, found in the file that a training script saved.

A file is a dictionary that holds the tensors under a key or by itself; their names begin with a prefix that tells
which of several networks they belong to. `LAYOUTS` says both for the scripts that are known.
"""
import argparse
import dataclasses
import pathlib
import pickle
import re

import torch

from . import Refused

SHOWN = 8  # names in a message, of each sort


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a training script puts a network: `container` is the key of the dictionary of tensors ("": the file is that
    dictionary), `prefixes` are tried in order. `momentum` is the same for the slowly following network.
    """

    container: str
    prefixes: tuple
    momentum: tuple = ()


# The order is the order in which `auto` looks: the more special name first, tensors without a prefix last.
LAYOUTS = {
    "moco": Layout("state_dict", ("module.encoder_q.", "encoder_q."), ("module.encoder_k.", "encoder_k.")),
    "moco-v3": Layout(
        "state_dict",
        ("module.base_encoder.", "base_encoder."),
        ("module.momentum_encoder.", "momentum_encoder."),
    ),
    "dino": Layout("teacher", ("backbone.", "module.backbone.", "")),
    "dino-student": Layout("student", ("module.backbone.", "backbone.", "module.", "")),
    # lightly, solo-learn and others that train with Lightning; solo-learn's slow network is momentum_backbone.
    "simclr": Layout(
        "state_dict",
        ("backbone.", "model.backbone.", "module.backbone.", "model.", "encoder.", "net.", "network."),
        ("momentum_backbone.", "backbone_momentum.", "momentum_encoder."),
    ),
    "state-dict": Layout("state_dict", ("module.", "")),
    "model": Layout("model", ("module.", "")),
    "plain": Layout("", ("module.", "backbone.", "")),
}
# What stands behind the features in the networks that these scripts train. Left out, and counted.
HEADS = re.compile(
    r"(fc|head|heads|classifier|projector|projection_head|prediction_head|predictor|pre_logits|dino_head|ibot_head)\."
)
# The buffers that PyTorch keeps for its own counting; old files lack them.
COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")
# lightly takes the children of a torchvision ResNet without its last into one Sequential: 0 is conv1, and so on.
LIGHTLY = dict(zip("014567", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), strict=True))


def load(path):
    """The dictionary in a file of torch.save or safetensors. Nothing in it is run: see `weights_only` of torch.load."""
    path = pathlib.Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        # The training arguments that DINO and others save beside the weights; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Refused(f"{path} is not there") from error
    except pickle.UnpicklingError as error:
        raise Refused(
            f"{path}: is no checkpoint of tensors, or holds more than tensors, which could run code when opened:\n"
            f"  {str(error).splitlines()[0]}\n"
            "Where you trust the file, save its weights alone, in the Python that it was trained with:\n"
            f"  import torch; c = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
            "  torch.save({'state_dict': c['state_dict']}, 'weights.pt')"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise Refused(f"{path} is not a file of torch.save, or is not complete: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise Refused(f"{path} holds a {type(found).__name__}; a dictionary of tensors is needed")
    return found


@dataclasses.dataclass
class Match:
    """Tensors named as the network names them, and what stands against them."""

    where: str
    tensors: dict
    missing: list
    unknown: list
    shapes: list
    heads: int = 0
    elsewhere: int = 0

    @property
    def mistakes(self):
        return len(self.missing) + len(self.unknown) + len(self.shapes)


def match(found, expected, layout="auto", momentum=False, renames=()):
    """The tensors of `found` (a loaded file) for a network with the tensors `expected` (its state_dict).

    `renames`: pairs (pattern, replacement) applied to every name first, as `re.sub` does. Raises `Refused`, with the
    names, unless every tensor of the network is there in its shape, and nothing else but heads beside it.
    """
    tried = []
    for name in LAYOUTS if layout == "auto" else [layout]:
        one = LAYOUTS[name]
        inside = found.get(one.container) if one.container else found
        if not isinstance(inside, dict):
            continue
        tensors = {rename(k, renames): v.float() for k, v in inside.items() if isinstance(v, torch.Tensor)}
        for prefix in one.momentum if momentum else one.prefixes:
            if any(key.startswith(prefix) for key in tensors):
                label = f"layout {name}" + (f", {prefix}*" if prefix else "")
                tried.append(_compare(label, tensors, prefix, expected))
                if not tried[-1].mistakes:
                    return tried[-1]
    if not tried:
        keys = list(found)
        raise Refused(
            f"the file has no tensors where layout {layout} has them{' for the momentum network' if momentum else ''}; "
            f"its keys: {_some(keys)}. Name the layout (--layout), or map names (--map PATTERN=REPLACEMENT)"
        )
    best = min(tried, key=lambda m: m.mistakes)
    lines = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            ("tensors of the network are not in the file", best.missing),
            ("tensors have another shape", best.shapes),
            ("tensors of the file are not in the network", best.unknown),
        )
        if names
    ]
    raise Refused(
        f"the checkpoint does not match the network ({best.where}, the nearest of {len(tried)} tried):\n  "
        + "\n  ".join(lines)
        + "\nName the right network (--arch) and layout (--layout), or map names (--map PATTERN=REPLACEMENT)"
    )


def rename(key, renames):
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def _compare(where, tensors, prefix, expected):
    own = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    if "conv1.weight" in expected and "conv1.weight" not in own and "0.weight" in own:
        own = {re.sub(r"^\d+", lambda m: LIGHTLY.get(m[0], m[0]), key): v for key, v in own.items()}
    heads = [key for key in own if HEADS.match(key) and key not in expected]
    unknown = [key for key in own if key not in expected and key not in heads]
    return Match(
        where=where,
        tensors={key: own[key] for key in expected if key in own},
        missing=[key for key in expected if key not in own and not COUNTERS.search(key)],
        unknown=unknown,
        shapes=[
            f"{key} {list(own[key].shape)} for {list(value.shape)}"
            for key, value in expected.items()
            if key in own and own[key].shape != value.shape
        ],
        heads=len(heads),
        elsewhere=len(tensors) - len(own),
    )


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more
