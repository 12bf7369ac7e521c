"""How alike or how far apart the samples of a batch are: the matrices (N, N) that losses on relations compare."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import full
from instil.objectives.directions import products

NEAREST = 1e-6
"""A mean distance below this is not divided by."""


def inner_products(samples: Tensor) -> Tensor:
    """[i, j]: the inner product of samples i and j (N, ...)."""
    flat = samples.flatten(1)
    return products(flat, flat)


def distances(samples: Tensor) -> Tensor:
    """[i, j]: the Euclidean distance of samples i and j (N, ...), which coincide where ``squared_distances`` says so."""
    squared, same = _apart(samples)
    return squared.masked_fill_(same, 1.0).sqrt().masked_fill(same, 0.0)


def squared_distances(samples: Tensor) -> Tensor:
    """[i, j]: the squared Euclidean distance of samples i and j (N, ...), from one matrix product of the samples less their mean.

    Exactly 0, without a gradient, on the diagonal and where it is less than the rounding errors of that product, which are proportional to the
    squared lengths: below some 0.3 % of their distance from the mean (float32, width 512) two samples coincide.
    """
    squared, same = _apart(samples)
    return squared.masked_fill_(same, 0.0)


def _apart(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances with rounding errors, and where they are nothing else."""
    flat = full(samples).flatten(1)
    flat = flat - flat.detach().mean(0)  # no distance changes, and the numbers are smaller
    length = flat.square().sum(1)
    with torch.autocast(flat.device.type, enabled=False):
        squared = torch.addmm(length + length[:, None], flat, flat.mT, alpha=-2)
    rounding = 2 * torch.finfo(flat.dtype).eps * (8 + math.sqrt(flat.shape[1]))
    return squared, (squared.detach() <= rounding * length.detach()[:, None]).fill_diagonal_(True)


def centred(matrix: Tensor) -> Tensor:
    """A matrix (N, N) with mean 0 in every row and column."""
    return matrix - matrix.mean(0, keepdim=True) - matrix.mean(1, keepdim=True) + matrix.mean()
