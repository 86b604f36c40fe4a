"""Augmented views of a batch of images, in one go, on the device where the images are.

Crops, colour jitter, grey and blur of MoCo v2 and SimCLR (Chen et al. 2020, appendix A). What differs: the order of the
colour changes is fixed, hue turns in YIQ, and the blur's kernel is a tenth of the side. Every number is drawn from the
generator given, so that the same generator makes the same views.
"""

import dataclasses
import math

import torch
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass
class Views:
    """How strong the changes are; each as a share of images (`p`) or as a range."""

    size: int  # side of a view in pixels
    crop: float = 0.2  # least share of the area that a crop keeps
    flip: float = 0.5  # share of mirrored views
    jitter: float = 0.4  # brightness, contrast and saturation: factor 1 - jitter to 1 + jitter; hue: turns by a quarter
    jitter_p: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    exposure: float = 0.0  # mean brightness that views are brought to at the end; 0: they stay as they are


def uniform(generator, n, low, high):
    return torch.empty(n).uniform_(low, high, generator=generator)


def crops(images, views, generator):
    """Random crops of area `views.crop` to 1 and sides 3:4 to 4:3, some mirrored, brought to `views.size`."""
    n = len(images)
    area = uniform(generator, n, views.crop, 1)
    ratio = uniform(generator, n, math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x = uniform(generator, n, -1, 1) * (1 - width)
    y = uniform(generator, n, -1, 1) * (1 - height)
    mirrored = torch.where(uniform(generator, n, 0, 1) < views.flip, -1.0, 1.0)
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([width * mirrored, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta.to(images.device), (n, 3, views.size, views.size), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def hue_matrices(angles):
    """`[n, 3, 3]`: RGB to RGB with the chroma of YIQ turned by `angles`."""
    to_yiq = torch.tensor([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    cos, sin = angles.cos(), angles.sin()
    turn = torch.zeros(len(angles), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def coloured(x, views, generator):
    """Brightness, contrast, saturation and hue of some images changed, some made grey."""
    n, weights = len(x), torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)
    changed = uniform(generator, n, 0, 1) < views.jitter_p

    def factor():
        drawn = uniform(generator, n, max(0.0, 1 - views.jitter), 1 + views.jitter)
        return torch.where(changed, drawn, torch.ones(n)).view(n, 1, 1, 1).to(x.device)

    x = (x * factor()).clamp(0, 1)
    middle, strength = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True), factor()
    x = (middle + (x - middle) * strength).clamp(0, 1)
    saturation = factor()
    hue = torch.where(changed, uniform(generator, n, -1, 1) * views.jitter / 4 * 2 * math.pi, torch.zeros(n))
    grey = uniform(generator, n, 0, 1).view(n, 1, 1, 1).to(x.device) < views.grey
    luma = (x * weights).sum(1, keepdim=True)
    x = luma + (x - luma) * torch.where(grey, torch.zeros_like(saturation), saturation)
    return torch.einsum("nij,njhw->nihw", hue_matrices(hue).to(x.device), x).clamp(0, 1)


def blurred(x, views, generator):
    """Gaussian blur of some images, standard deviation .1 to 2 pixels at a side of 224."""
    n, side = len(x), x.shape[-1]
    chosen = (uniform(generator, n, 0, 1) < views.blur).nonzero().flatten()
    sigma = (uniform(generator, n, 0.1, 2.0) * side / 224).clamp(min=0.1)[chosen]
    if len(chosen) == 0:
        return x
    reach = max(1, side // 20)
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0).to(x.device)
    some = x[chosen.to(x.device)].reshape(1, -1, side, side)
    some = F.pad(some, (reach,) * 4, mode="reflect")
    some = F.conv2d(some, kernel[:, None, None, :], groups=len(kernel))
    some = F.conv2d(some, kernel[:, None, :, None], groups=len(kernel))
    out = x.clone()
    out[chosen.to(x.device)] = some.reshape(-1, 3, side, side)
    return out


def exposed(x, level):
    """Images of 0 to 1 brought to the mean brightness `level` by a factor, clipped; 0: they stay as they are."""
    return (x * level / x.mean((1, 2, 3), keepdim=True).clamp(min=1 / 255)).clamp(0, 1) if level else x


def normalised(x, exposure):
    """Images of 0 to 1 as encoders want them: exposure, then ImageNet's mean and standard deviation."""
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (exposed(x, exposure) - mean) / std


def view(images, views, generator):
    """One view of each of `images` (`[n, 3, s, s]`, 0 to 1), `[n, 3, size, size]`, normalised."""
    x = crops(images, views, generator)
    x = coloured(x, views, generator)
    x = blurred(x, views, generator)
    return normalised(x, views.exposure)


def plain(images, size, exposure):
    """`images` without any change but size and normalisation."""
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return normalised(images, exposure)
