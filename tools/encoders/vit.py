"""Vision Transformer with the tensor names of MoCo v3, DINO, DINOv2 and timm (they agree), so that checkpoints load.

Sources: Dosovitskiy et al. 2021, "An image is worth 16x16 words"; Chen, Xie, He 2021 (MoCo v3; convolutional stem by Xiao
et al. 2021); Caron et al. 2021 (DINO); Oquab et al. 2023 and Darcet et al. 2023 (DINOv2: layer scale, registers).
"""
import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Shape:
    """What tells one ViT from another. `patch` and `size` in pixels."""

    dim: int
    depth: int
    heads: int
    patch: int = 16
    size: int = 224
    registers: int = 0
    layer_scale: bool = False
    conv_stem: bool = False
    mask_token: bool = False


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):  # [n, t, d]
        dim = x.shape[2]
        width = dim // self.heads
        q, k, v = (
            part.unflatten(2, (self.heads, width)).transpose(1, 2) for part in self.qkv(x).split(dim, dim=2)
        )  # each [n, heads, t, width]
        weights = ((q * width**-0.5) @ k.transpose(2, 3)).softmax(3)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.dim, eps=1e-6)
        self.attn = Attention(shape.dim, shape.heads)
        self.ls1 = LayerScale(shape.dim) if shape.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(shape.dim, eps=1e-6)
        self.mlp = Mlp(shape.dim)
        self.ls2 = LayerScale(shape.dim) if shape.layer_scale else nn.Identity()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


def conv_stem(dim):
    """Four 3x3 convolutions of stride 2 and a 1x1 one, in place of patches of 16 pixels."""
    layers, inputs = [], 3
    for width in (dim // 8, dim // 4, dim // 2, dim):
        layers += [nn.Conv2d(inputs, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))


class PatchEmbed(nn.Module):
    def __init__(self, shape):
        super().__init__()
        plain = nn.Conv2d(3, shape.dim, shape.patch, shape.patch)
        self.proj = conv_stem(shape.dim) if shape.conv_stem else plain

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """`[n, 3, size, size]` to tokens `[n, 1 + registers + (size / patch)^2, dim]`, normalised; the first is the class
    token, which `forward` gives as `[n, dim]`.
    """

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.prefix = 1 + shape.registers
        self.side = shape.size // shape.patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.side**2, shape.dim) * 0.02)
        if shape.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, shape.dim))
        if shape.mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, shape.dim))
        self.patch_embed = PatchEmbed(shape)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.dim, eps=1e-6)

    def tokens(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        if self.shape.registers:
            registers = self.register_tokens.expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
        return self.norm(self.blocks(x))

    def forward(self, x):
        return self.tokens(x)[:, 0]


def resized_positions(positions, side):
    """Position embeddings `[1, 1 + s^2, d]` for a grid of `side` x `side` patches: bicubic, as DINO does it."""
    old = math.isqrt(positions.shape[1] - 1)
    if old == side:
        return positions
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _family(prefix, widths, **more):
    return {f"{prefix}_{name}": Shape(dim, depth, heads, **more) for name, (dim, depth, heads) in widths.items()}


TINY, SMALL, BASE, LARGE = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16)
# MoCo v3's small ViT has 12 heads, and with the convolutional stem one block less.
SHAPES = {
    **_family("moco_vit", {"small": (384, 12, 12), "base": BASE}),
    **_family("moco_vit_conv", {"small": (384, 11, 12), "base": (768, 11, 12)}, conv_stem=True),
    **_family("dino_vit", {"tiny_p16": TINY, "small_p16": SMALL, "base_p16": BASE}),
    **_family("dino_vit", {"small_p8": SMALL, "base_p8": BASE}, patch=8),
    **_family(
        "dinov2_vit", {"small": SMALL, "base": BASE, "large": LARGE}, patch=14, layer_scale=True, mask_token=True
    ),
    **_family(
        "dinov2_reg_vit", {"small": SMALL, "base": BASE, "large": LARGE},
        patch=14, layer_scale=True, mask_token=True, registers=4,
    ),
}
