"""Networks by name, without their heads: own ViT, torchvision, timm."""
import dataclasses

import torch
from torch import nn

from . import Refused, checkpoint, vit

# Attributes that hold the layers behind the features, in torchvision's classifiers.
HEADS = ("fc", "classifier", "heads", "head")
STRIDE = 32  # of convolutional networks: what their sides are to be a multiple of


def build(name, size=None, pretrained=False):
    """The network `name` in eval mode, giving features: a name of `vit.SHAPES`, `torchvision:NAME`, `timm:NAME`, or a bare
    name, looked for in this order. `size`: side in pixels, for those that are made for one.
    """
    library, _, bare = name.rpartition(":")
    if library not in ("", "torchvision", "timm"):
        raise Refused(f"--arch {name}: {library} is none of torchvision, timm")
    if not library and name in vit.SHAPES and not pretrained:
        shape = vit.SHAPES[name]
        if size and size % shape.patch:
            raise Refused(f"--size {size}: {name} takes multiples of its patch, {shape.patch} pixels")
        return vit.VisionTransformer(dataclasses.replace(shape, size=size or shape.size)).eval()
    if library != "timm":
        network = _torchvision(bare, pretrained)
        if network is not None:
            return network
    if library != "torchvision":
        network = _timm(bare, size, pretrained)
        if network is not None:
            return network
    raise Refused(f"--arch {name}: no such network; there are {', '.join(vit.SHAPES)}, and those of torchvision and timm")


def _torchvision(name, pretrained):
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    more = {"aux_logits": False} if name in ("googlenet", "inception_v3") and not pretrained else {}
    network = models.get_model(name, weights="DEFAULT" if pretrained else None, **more)
    for head in HEADS:
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
            return network.eval()
    raise Refused(f"--arch {name}: it has no head that is known ({', '.join(HEADS)}), so what are its features?")


def _timm(name, size, pretrained):
    import timm

    if not timm.is_model(name):
        return None
    timm.layers.set_exportable(True)
    timm.layers.set_fused_attn(False)
    try:
        more = {"img_size": size} if size else {}
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **more).eval()
    except TypeError:  # img_size is not for convolutional networks
        return timm.create_model(name, pretrained=pretrained, num_classes=0).eval()


def is_transformer(network):
    """True where the network is made for one size of image, since it adds embeddings of positions."""
    return any(name.endswith("pos_embed") or name.endswith("pos_embedding") for name, _ in network.named_parameters())


def multiple_of(network, size):
    """What other sizes must be a multiple of: `size` itself where the network takes only that one."""
    if is_transformer(network):
        return size
    return STRIDE if size % STRIDE == 0 else 1


def fill(network, found, layout, momentum, renames):
    """Loads the tensors of a file (`checkpoint.load`) into the network; what was taken and what left out."""
    expected = network.state_dict()
    if isinstance(network, vit.VisionTransformer):
        found = _with_positions(found, network.side)
    matched = checkpoint.match(found, expected, layout, momentum, renames)
    network.load_state_dict(matched.tensors, strict=False)  # complete but for counters: matched
    return matched


def _with_positions(found, side):
    """The same nested dictionary, with position embeddings for `side` x `side` patches."""
    def resized(key, value):
        if isinstance(value, dict):
            return {k: resized(k, v) for k, v in value.items()}
        if isinstance(value, torch.Tensor) and str(key).endswith("pos_embed") and value.ndim == 3:
            return vit.resized_positions(value.float(), side)
        return value

    return resized("", found)
