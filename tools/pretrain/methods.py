"""The three objectives: MoCo v2, SimCLR and CPC v2. Each is a module with `loss(first, second, shots, generator)`.

`first` and `second` are views `[n, 3, h, w]` of two frames of a shot (the same frame with --gap 0); `shots` `[n]` are the
numbers of their shots. It returns the loss and the share of rows whose positive is ranked first. Frames of the same shot
are never negatives of each other: most would show the same thing.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

import augment
import networks


def projection(inputs, outputs):
    """The projection of MoCo v2 and SimCLR: linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))


class Method(nn.Module):
    """Common to all: the first stages of the encoder may be frozen.

    `trunk` is the name of the encoder among the modules, `prefix` what stands before all names of weights in a checkpoint.
    """

    def net(self):
        """The encoder that is trained, and exported."""
        return getattr(self, self.trunk)

    def views(self, images, views, generator):
        """What `loss` takes of `images` (0 to 1)."""
        return augment.view(images, views, generator)

    def freeze(self, net, stages):
        """Splits `net` into its first `stages` stages, which stay as they are, and the others."""
        everything = networks.stages(net)
        if not 0 <= stages < len(everything):
            raise SystemExit(f"--freeze {stages}: 0 to {len(everything) - 1} stages of this encoder can be frozen")
        self.frozen = stages
        for stage in everything[:stages]:
            stage.requires_grad_(False)

    def encode(self, net, images):
        """`[n, d]` of `images`; no gradient goes into the frozen stages."""
        images = images.contiguous(memory_format=torch.channels_last)  # three times as fast for MobileNetV2 on a CPU
        with torch.no_grad():
            for stage in networks.stages(net)[: self.frozen]:
                images = stage(images)
        return networks.latent(net, images, self.frozen)


class MoCo(Method):
    """MoCo v2 (He et al. 2020, 1911.05722; Chen et al. 2020, 2003.04297): a query against its key and a queue of keys.

    `L = -log exp(q.k/T) / (exp(q.k/T) + sum over the queue of exp(q.u/T))`, unit vectors. The key encoder follows the
    query encoder with `momentum`, before the keys are made. Names of weights and buffers are those of
    facebookresearch/moco; `queue_shot` is ours.
    """

    prefix, trunk = "module.", "encoder_q"

    def __init__(self, net, given):
        super().__init__()
        self.temperature, self.momentum = given.temperature, given.momentum
        net.fc = projection(net.dimensions, given.projection)
        self.freeze(net, given.freeze)
        self.encoder_q, self.encoder_k = net, copy.deepcopy(net).requires_grad_(False)
        generator = torch.Generator().manual_seed(given.seed)
        self.register_buffer("queue", F.normalize(torch.randn(given.projection, given.queue, generator=generator), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.register_buffer("queue_shot", torch.full((given.queue,), -1))

    @torch.no_grad()
    def keys(self, images, generator):
        """Keys of `images`, in an order of their own on the way, so that no batch statistic tells what belongs together."""
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            k.lerp_(q, 1 - self.momentum)
        order = torch.randperm(len(images), generator=generator).to(images.device)
        keys = self.encoder_k.fc(self.encode(self.encoder_k, images[order]))
        return F.normalize(keys, dim=1)[torch.argsort(order)]

    @torch.no_grad()
    def enqueue(self, keys, shots):
        """The newest keys take the places of the oldest."""
        start, size = int(self.queue_ptr), self.queue.shape[1]
        places = (start + torch.arange(len(keys), device=keys.device)) % size
        self.queue[:, places], self.queue_shot[places] = keys.T, shots
        self.queue_ptr[0] = (start + len(keys)) % size

    def loss(self, first, second, shots, generator):
        q = F.normalize(self.encoder_q.fc(self.encode(self.encoder_q, first)), dim=1)
        k = self.keys(second, generator)
        own = (q * k).sum(1, keepdim=True)
        others = (q @ self.queue.clone()).masked_fill(shots[:, None] == self.queue_shot[None], -torch.inf)
        logits = torch.cat([own, others], 1) / self.temperature
        self.enqueue(k, shots)
        labels = torch.zeros(len(q), dtype=torch.long, device=q.device)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == 0).float().mean()


class SimCLR(Method):
    """SimCLR (Chen et al. 2020, 2002.05709): NT-Xent, both views of each frame against all other views of the batch.

    `L = -1/2N sum_i log exp(z_i.z_p(i)/T) / sum over k != i of exp(z_i.z_k/T)`, unit vectors. Names of weights are those
    of lightly's examples (`backbone.*`, `projection_head.*`).
    """

    prefix, trunk = "", "backbone"

    def __init__(self, net, given):
        super().__init__()
        self.temperature = given.temperature
        self.freeze(net, given.freeze)
        self.backbone = net
        self.projection_head = nn.Module()
        self.projection_head.layers = projection(net.dimensions, given.projection)

    def loss(self, first, second, shots, generator):
        both = torch.cat([first, second])
        latents = self.encode(self.backbone, both)
        z = F.normalize(self.projection_head.layers(latents), dim=1)
        n = len(first)
        partner = torch.arange(2 * n, device=z.device).roll(n)
        shot = shots.repeat(2)
        hidden = shot[:, None] == shot[None]
        hidden[torch.arange(2 * n, device=z.device), partner] = False
        logits = (z @ z.T / self.temperature).masked_fill(hidden, -torch.inf)
        return F.cross_entropy(logits, partner), (logits.argmax(1) == partner).float().mean()


class Context(nn.Module):
    """The masked network of CPC v2 (Hénaff et al. 2019, 1905.09272, page 15): a cell knows its row and the rows above."""

    def __init__(self, width, blocks=5, hidden=256):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, hidden, 1), nn.ReLU(),
                nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)), nn.ZeroPad2d((0, 0, 1, 0)),
                nn.Conv2d(hidden, hidden, (2, 1)), nn.ReLU(),
                nn.Conv2d(hidden, width, 1),
            )
            for _ in range(blocks)
        )

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x)


class CPC(Method):
    """CPC v2 (1905.09272): what stands `k` rows further is told from every other cell of the batch.

    With the grid `z` `[n, 7, 7, d]` of cells (networks.PatchGrid), each layer-normalised: context `c` of the rows so far,
    targets `t = W z`, predictions `p_k = W_k c`, logits `.1 p_k . t` against all cells of the batch, the mean over `k` and
    cells. `k` begins at 2, since neighbouring cells share half of their pixels. Each cell is augmented by itself. A step
    goes in one of the four directions (down, up, right, left), drawn anew, with one context network for all; the paper
    has one for each. Cells of other frames of the same shot are left out.
    """

    prefix, trunk = "", "encoder"
    scale = 0.1

    def __init__(self, net, given):
        super().__init__()
        self.freeze(net, given.freeze)
        self.encoder, self.patches = net, networks.PatchGrid(net).patches
        self.cells = networks.PatchGrid.cells
        width = 256
        self.narrow = nn.Linear(net.dimensions, width)
        self.norm = nn.LayerNorm(net.dimensions)
        self.context = Context(width)
        self.targets = nn.Conv2d(width, 64, 1)
        self.offsets = range(2, given.rows + 1)
        self.predictions = nn.ModuleList(nn.Conv2d(width, 64, 1) for _ in self.offsets)
        self.cell_views = augment.Views(
            2 * networks.PatchGrid.step, crop=0.7, flip=given.flip, jitter=given.jitter, grey=given.grey, blur=0.0
        )

    def views(self, images, views, generator):
        """Crops only, since the colours change by cell."""
        return augment.exposed(augment.crops(images, views, generator), views.exposure)

    def loss(self, first, second, shots, generator):
        del second
        n, side = len(first), self.cells
        cells = augment.view(self.patches(first), self.cell_views, generator)
        latents = self.encode(self.encoder, cells)
        grid = self.narrow(self.norm(latents)).reshape(n, side, side, -1).permute(0, 3, 1, 2)
        grid = torch.rot90(grid, int(torch.randint(4, (), generator=generator)), (2, 3))
        context = self.context(grid)
        keys = self.targets(grid).permute(0, 2, 3, 1).reshape(n * side * side, -1)
        frame = torch.arange(n, device=grid.device).repeat_interleave(side * side)
        shot = shots.repeat_interleave(side * side)
        place = torch.arange(n * side * side, device=grid.device).reshape(n, side, side)
        losses, right = [], []
        for k, predict in zip(self.offsets, self.predictions):
            labels = place[:, k:].reshape(-1)
            predicted = predict(context)[:, :, :-k].permute(0, 2, 3, 1).reshape(len(labels), -1)
            hidden = (shot[labels][:, None] == shot[None]) & (frame[labels][:, None] != frame[None])
            logits = (self.scale * predicted @ keys.T).masked_fill(hidden, -torch.inf)
            losses.append(F.cross_entropy(logits, labels))
            right.append((logits.argmax(1) == labels).float().mean())
        return torch.stack(losses).mean(), torch.stack(right).mean()


METHODS = {"moco": MoCo, "simclr": SimCLR, "cpc": CPC}
