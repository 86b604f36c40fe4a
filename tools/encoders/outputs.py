"""What is read of a network: a vector, a grid of its last map or of its patch tokens, or a grid of encoded patches."""
import math

import torch
from torch import nn

from . import Refused, vit


class Vector(nn.Module):
    """`[n, 3, h, w]` to `[n, d]`: the features as the network gives them."""

    kind, layout = "vector", None

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image)


class TokenGrid(nn.Module):
    """`[n, 3, s, s]` to `[n, h, w, d]`: the patch tokens of a ViT, in their rows and columns; class token and registers
    left out. `tokens`: gives `[n, prefix + h * w, d]`.
    """

    kind, layout = "grid", "hwd"

    def __init__(self, network, tokens, prefix, side):
        super().__init__()
        self.network = network
        self.tokens, self.prefix, self.side = tokens, prefix, side

    def forward(self, image):
        patches = self.tokens(image)[:, self.prefix :]
        return patches.reshape(-1, self.side, self.side, patches.shape[2])


class MapGrid(nn.Module):
    """`[n, 3, h, w]` to `[n, d, h', w']`: the last map of a convolutional network, which module `name` gives."""

    kind, layout = "grid", "dhw"

    def __init__(self, network, name):
        super().__init__()
        self.network = network
        self.seen = None
        dict(network.named_modules())[name].register_forward_hook(self._keep)

    def _keep(self, _module, _inputs, output):
        self.seen = output

    def forward(self, image):
        self.network(image)
        return self.seen


class PatchGrid(nn.Module):
    """`[n, 3, s, s]` to `[n, m, m, d]`: overlapping cells of `cell` pixels, `stride` apart, each encoded by itself, as
    CPC has it (van den Oord et al. 2018, "Representation learning with contrastive predictive coding", section 3.2: 7 x 7
    cells of 64 pixels in an image of 256). `m = (s - cell) / stride + 1`.
    """

    kind, layout = "grid", "hwd"

    def __init__(self, network, cell, stride):
        super().__init__()
        self.network, self.cell, self.stride = network, cell, stride

    def forward(self, image):
        blocks = image.shape[2] // self.stride
        cells = blocks - self.cell // self.stride + 1
        # A cell is `cell / stride` neighbouring blocks: a few slices beside each other, rows first, then columns.
        x = image.reshape(-1, 3, blocks, self.stride, blocks, self.stride)
        x = torch.cat([x[:, :, i : i + cells] for i in range(self.cell // self.stride)], 3)
        x = torch.cat([x[:, :, :, :, i : i + cells] for i in range(self.cell // self.stride)], 5)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, self.cell, self.cell)
        return self.network(x).reshape(-1, cells, cells, self.dim)

    def prepare(self):
        """Finds the length of a cell's features."""
        with torch.no_grad():
            found = self.network(torch.zeros(1, 3, self.cell, self.cell))
        if found.ndim != 2:
            raise Refused(f"--cpc: the network gives {list(found.shape)} for a patch; [n, d] is needed")
        self.dim = found.shape[1]
        return self


def patches(network, size, cell, stride):
    """`PatchGrid` for images of `size` pixels."""
    if cell % stride or size % stride or size < cell:
        raise Refused(
            f"--cpc: cells of {cell} pixels, {stride} apart, do not fill an image of {size}: --cell and --size must be "
            "multiples of --stride, and --size at least --cell"
        )
    return PatchGrid(network, cell, stride).prepare()


def grid(network, size):
    """`TokenGrid` of a ViT, `MapGrid` of another network."""
    if isinstance(network, vit.VisionTransformer):
        return TokenGrid(network, network.tokens, network.prefix, network.side)
    if hasattr(network, "num_prefix_tokens"):  # a ViT of timm
        return _square(network, network.forward_features, network.num_prefix_tokens, size)
    if hasattr(network, "encoder") and hasattr(network, "class_token"):  # a ViT of torchvision
        def tokens(image):
            x = network._process_input(image)  # noqa: SLF001
            return network.encoder(torch.cat([network.class_token.expand(x.shape[0], -1, -1), x], 1))

        return _square(network, tokens, 1, size)
    return MapGrid(network, last_map(network, size))


def _square(network, tokens, prefix, size):
    with torch.no_grad():
        count = tokens(torch.zeros(1, 3, size, size)).shape[1] - prefix
    side = math.isqrt(count)
    if side * side != count:
        raise Refused(f"--grid: {count} patch tokens are no square")
    return TokenGrid(network, tokens, prefix, side)


def last_map(network, size):
    """Name of the module that gives the last map `[n, d, h, w]` of more than one cell."""
    last = []
    hooks = []
    for name, module in network.named_modules():
        def keep(_module, _inputs, output, name=name):
            if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                last[:] = [name]

        if name:
            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        network(torch.randn(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    if not last:
        raise Refused(f"--grid: the network has no map of more than one cell at {size} pixels")
    return last[0]
