"""Nearest neighbours: is what the encoder learns of use? By the shots held out, or by labelled images where there are some.

Votes are those of `afterimage eval`: a neighbour of cosine s has the weight exp(s / .07) (Wu et al. 2018, section 3.4).
Embeddings here are the mean over the last map at the size of training, of CPC the mean of its cells. The figures of an exported
model, with its taps, come from `afterimage eval`.
"""

import pathlib

import numpy as np
import torch

import augment
import networks
from frames import IMAGES, pictures

TEMPERATURE = 0.07


def accuracy(gallery, gallery_labels, queries, query_labels, k):
    """Share of `queries` `[q, d]` whose label wins the vote of their `k` nearest rows of `gallery` `[g, d]`."""
    similar, order = torch.topk(queries @ gallery.T, min(k, len(gallery)), dim=1)
    votes = torch.zeros(len(queries), int(max(gallery_labels.max(), query_labels.max())) + 1)
    votes.scatter_add_(1, gallery_labels[order], (similar / TEMPERATURE).exp())
    return float((votes.argmax(1) == query_labels).float().mean())


class Monitor:
    """Encodes a gallery and queries, and counts. `pixels` of each: uint8 `[n, side, side, 3]`."""

    def __init__(self, gallery, queries, what):
        self.gallery, self.queries, self.what = gallery, queries, what

    @classmethod
    def of_shots(cls, frames, held_out):
        """Is the last frame of a shot nearest to the first one of the same shot, among all held-out shots?"""
        first = np.unique(frames.first[held_out])
        last = frames.last[first]
        several = last > first
        labels = torch.arange(int(several.sum()))
        parts = [(frames.pixels[index[several]], labels) for index in (first, last)]
        return cls(*parts, f"first and last frames of {len(labels)} held-out shots")

    @classmethod
    def of_labels(cls, folder, side):
        """gallery/CLASS/* and query/CLASS/* below `folder`, a class being one or two folders deep."""
        parts, names = [], {}
        for part in ("gallery", "query"):
            paths = sorted(p for p in pathlib.Path(folder, part).rglob("*") if p.suffix.lower() in IMAGES)
            if not paths:
                raise SystemExit(f"--probe {folder}: no images in {part}/CLASS/")
            classes = [str(p.parent.relative_to(pathlib.Path(folder, part))) for p in paths]
            labels = torch.tensor([names.setdefault(name, len(names)) for name in classes])
            parts.append((np.stack(list(pictures(paths, side))), labels))
        return cls(*parts, f"labelled images of {folder}")

    @torch.no_grad()
    def measure(self, net, size, exposure, grid, device):
        """(1-NN, 5-NN) accuracy of `net`, which is left in evaluation mode."""
        net.eval()
        (gallery, labels), (queries, wanted) = (
            (self.rows(net, pixels, size, exposure, grid, device), labels) for pixels, labels in (self.gallery, self.queries)
        )
        return tuple(accuracy(gallery, labels, queries, wanted, k) for k in (1, 5))

    @staticmethod
    def rows(net, pixels, size, exposure, grid, device):
        rows = []
        for start in range(0, len(pixels), 32):
            images = torch.from_numpy(np.ascontiguousarray(pixels[start : start + 32])).to(device)
            images = augment.plain(images.permute(0, 3, 1, 2).float() / 255, size, exposure)
            images = images.contiguous(memory_format=torch.channels_last)
            if grid:
                patches = networks.latent(net, grid.patches(images))
                rows.append(grid.grid(patches).mean((1, 2)).cpu())
            else:
                rows.append(networks.latent(net, images).cpu())
        return torch.nn.functional.normalize(torch.cat(rows), dim=1)
