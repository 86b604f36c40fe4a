"""Labelled folders, nearest neighbours as `afterimage eval` counts them, and how near two sets of latents are."""
import pathlib

import numpy as np

from . import cards

TEMPERATURE = 0.07  # as in src/knn.rs


def folder(path):
    """Gallery and query of a labelled folder (`gallery/CLASS/*`, `query/CLASS/*`): two pairs of (images, labels)."""
    return [_part(pathlib.Path(path, part)) for part in ("gallery", "query")]


def _part(path):
    files = cards.images(path)
    return files, [str(f.parent.relative_to(path)) for f in files]


def unit(x):
    """Rows of `x` made unit length."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def neighbours(gallery, labels, queries, k):
    """The label that each query's `k` nearest rows of the gallery vote for, each with weight `exp(cosine / 0.07)`
    (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4).
    """
    names = sorted(set(labels))
    number = np.array([names.index(label) for label in labels])
    similar = unit(queries) @ unit(gallery).T
    voted = []
    for row in similar:
        top = np.argsort(-row, kind="stable")[:k]
        votes = np.bincount(number[top], weights=np.exp(row[top] / TEMPERATURE), minlength=len(names))
        voted.append(names[int(votes.argmax())])
    return voted


def share(found, labels):
    """Share of places where two lists agree, 0 to 1."""
    return float(np.mean([a == b for a, b in zip(found, labels, strict=True)]))


def centred_cosines(latents, reference):
    """Cosine of each row with its reference after the mean of the references is taken from both.

    The mean of latents is large, so that the cosine of two rows says little: those of different images are alike, too.
    """
    mean = reference.mean(0)
    return (unit(latents - mean) * unit(reference - mean)).sum(1)
