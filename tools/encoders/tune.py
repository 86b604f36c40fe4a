"""Fits weights to 8 bits: the network in simulated 8 bits learns to give the latents that it gave in float32.

Nothing else is learned (no labels, no pairs): self-distillation, with the rounding of maps and weights in the way forward
and left out of the way back (straight-through; Jacob et al. 2018, "Quantization and training of neural networks for
efficient integer-arithmetic-only inference", section 3). Batch norms are folded into the convolutions already. Needs PyTorch.
"""
import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from . import Refused, cards, latents
from .channels import attribute, constants

# A step moves a weight by about so much of the size of the weights of its channels.
RATE = 2e-4
STEP_RATE = 2e-3
# Of the range of a map, tried as the range that its 8 bits cover: few values lie at the ends.
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
BATCH = 16
# Frames whose mean latent is what is taken off before cosines.
CENTRE = 256
# And frames that the steps of maps are first chosen by.
RANGES = 64
QUANTISED = ("Conv", "Clip", "Relu", "Add")


class Network:
    """The graph of `model` in PyTorch, in float32 or in simulated 8 bits."""

    def __init__(self, model, wanted):
        self.nodes = _needed(model.graph.node, wanted)
        self.values = {k: torch.from_numpy(np.array(v)) for k, v in constants(model).items()}
        convolutions = [n for n in self.nodes if n.op_type == "Conv"]
        self.weights = {n.input[1] for n in convolutions}
        self.sizes, self.moved = {}, {}
        for node in convolutions:
            for tensor, size in zip(node.input[1:], _sizes(*(self.values[t] for t in node.input[1:])), strict=True):
                self.sizes[tensor], self.moved[tensor] = size, torch.zeros_like(size, requires_grad=True)
        near = [n for n in self.nodes if n.op_type in QUANTISED]
        maps = {t for n in near for t in [*n.input, *n.output]} - set(self.values)
        # A convolution rounds after the activation that follows it.
        self.rounded = maps - {n.output[0] for n in convolutions if self._activated(n.output[0])}
        # Of a rounded map: its step, what was learned of that (a logarithm), and the number that stands for zero.
        self.steps, self.wider, self.zeros = {}, {}, {}

    def _activated(self, tensor):
        readers = [n for n in self.nodes if tensor in n.input]
        return len(readers) == 1 and readers[0].op_type in ("Clip", "Relu")

    def run(self, name, x, rounding):
        """All maps for the images `x`, by name."""
        found = {name: self._round(name, x) if rounding else x}
        for node in self.nodes:
            if node.op_type == "Constant":
                continue
            inputs = [found[t] if t in found else self._constant(t, rounding) for t in node.input if t]
            out = node.output[0]
            found[out] = _apply(node, inputs)
            if rounding and out in self.rounded:
                found[out] = self._round(out, found[out])
        return found

    def value(self, tensor):
        """A constant of the graph, with what was learned of it."""
        value = self.values[tensor]
        return value + self.sizes[tensor] * self.moved[tensor] if tensor in self.moved else value

    def measure(self, found):
        """Chooses the steps of the maps by what they hold now: of some shares of the range the one with the least error."""
        for tensor in self.rounded & set(found):
            x = found[tensor]
            low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
            self.wider[tensor] = torch.zeros((), requires_grad=True)
            tried = []
            for share in SHARES:
                self._set(tensor, share * low, share * high)
                tried.append((float((self._round(tensor, x) - x).square().sum()), share))
            self._set(tensor, min(tried)[1] * low, min(tried)[1] * high)

    def _set(self, tensor, low, high):
        self.steps[tensor] = max(high - low, 1e-12) / 255
        self.zeros[tensor] = round(-low / self.steps[tensor])

    def step(self, tensor):
        return self.steps[tensor] * self.wider[tensor].exp()

    def chosen(self):
        """Step and zero of each rounded map."""
        with torch.no_grad():
            return {tensor: (float(self.step(tensor)), self.zeros[tensor]) for tensor in self.steps}

    def _constant(self, tensor, rounding):
        value = self.value(tensor)
        if not rounding or tensor not in self.weights:
            return value
        step = (value.detach().abs().flatten(1).amax(1) / 127).clamp(min=1e-12).view(-1, 1, 1, 1)
        return value + (torch.round(value / step) * step - value).detach()

    def _round(self, tensor, x):
        step, zero = self.step(tensor), self.zeros[tensor]
        inside = (x / step).clamp(-zero, 255 - zero)
        return (inside + (torch.round(inside) - inside).detach()) * step


def tune(model, reference, card, frames, steps, seed=0, say=print):
    """Changes the weights of the convolutions of `model` in place, so that in 8 bits it gives the latents of `reference`;
    `frames`: image files. Prints how it goes. Returns the step and the zero of every map, by name.
    """
    if not card.get("taps"):
        card = {**card, "taps": ["output:as-is"]}
    wanted, name = latents.tensors(card), card["input"]
    random = np.random.default_rng(seed)

    def images(files):
        return torch.from_numpy(np.concatenate([cards.prepared(f, card) for f in files]))

    teacher, student = Network(reference, wanted), Network(model, wanted)
    with torch.no_grad():
        some = [images(f) for f in np.array_split(random.permutation(frames)[:CENTRE], CENTRE // BATCH) if len(f)]
        centre = torch.cat([joined(teacher.run(name, batch, False), card) for batch in some]).mean(0)
        first = torch.cat(some[:RANGES // BATCH])
        student.measure({name: first, **student.run(name, first, False)})
    optimizer = torch.optim.Adam([
        {"params": list(student.moved.values()), "lr": RATE}, {"params": list(student.wider.values()), "lr": STEP_RATE},
    ])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    lost = []
    for step in range(1, steps + 1):
        batch = images(random.choice(frames, BATCH))
        with torch.no_grad():
            target = joined(teacher.run(name, batch, False), card) - centre
        with torch.enable_grad():  # whoever calls may have turned it off
            found = joined(student.run(name, batch, True), card) - centre
            loss = 1 - F.cosine_similarity(found, target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        lost.append(float(loss.detach()))
        if step % 25 == 0 or step == steps:
            say(f"tuning: step {step} of {steps}, centred cosine {1 - np.mean(lost[-25:]):.4f}")
    for weight in model.graph.initializer:
        if weight.name in student.moved:
            value = student.value(weight.name).detach().numpy()
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    return student.chosen()


def joined(found, card):
    """The latents of `found`, `[n, d]`, as `latents.joined` makes them."""
    parts = [F.normalize(_pooled(found[tensor], pooling)) for tensor, pooling in latents.taps(card)]
    return F.normalize(torch.cat(parts, 1))


def _pooled(x, pooling):
    if x.ndim == 2:
        return x
    cells = x.flatten(2)
    if pooling == "max":
        return cells.amax(2)
    if pooling in ("mean", "as-is"):
        return cells.mean(2)
    if not pooling.startswith("gem"):
        raise Refused(f"tuning does not know the pooling {pooling}")
    power = float(pooling.removeprefix("gem"))
    return cells.clamp(min=latents.GEM_FLOOR).pow(power).mean(2).pow(1 / power)


def _sizes(weight, bias=None):
    """How large the weights of a convolution are, by channels of both sides (equalised, these differ by far), and biases."""
    square = weight.square()
    rows, columns = square.mean((1, 2, 3), keepdim=True).sqrt(), square.mean((0, 2, 3), keepdim=True).sqrt()
    whole = square.mean().sqrt().clamp(min=1e-12)
    sizes = [(rows * columns / whole).expand_as(weight)]
    if bias is not None:
        sizes.append(rows.view(-1) / whole * bias.square().mean().sqrt())
    return sizes


def _needed(nodes, wanted):
    """What `wanted` is computed by."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _apply(node, inputs):
    kind = node.op_type
    if kind == "Conv":
        top, left, bottom, right = attribute(node, "pads", [0] * 4)
        x = F.pad(inputs[0], (left, right, top, bottom))
        strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
        bias = inputs[2] if len(inputs) > 2 else None
        return F.conv2d(x, inputs[1], bias, strides, 0, dilations, attribute(node, "group", 1))
    if kind == "Clip":
        return inputs[0].clamp(*[float(bound) for bound in inputs[1:]])
    if kind == "Relu":
        return F.relu(inputs[0])
    if kind == "Add":
        return inputs[0] + inputs[1]
    if kind == "Mul":
        return inputs[0] * inputs[1]
    if kind == "MaxPool":
        top, left, bottom, right = attribute(node, "pads", [0] * 4)
        x = F.pad(inputs[0], (left, right, top, bottom), value=-torch.inf)
        return F.max_pool2d(x, attribute(node, "kernel_shape", None), attribute(node, "strides", [1, 1]))
    if kind == "GlobalAveragePool":
        return inputs[0].mean((2, 3), keepdim=True)
    if kind == "Flatten":
        return inputs[0].flatten(1)
    if kind == "ReduceMean":
        axes = attribute(node, "axes", None) or [int(a) for a in inputs[1]]
        return inputs[0].mean(axes, keepdim=bool(attribute(node, "keepdims", 1)))
    raise Refused(f"tuning knows no {kind}, which the network has; leave out --tune")
