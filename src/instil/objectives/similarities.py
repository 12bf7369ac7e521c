"""How alike or how far apart the samples of a batch are: the matrices (N, N) that losses on relations compare."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import full
from instil.objectives.directions import products

NEAREST = 1e-6  # samples nearer than this have no direction, and no gradient through their distance


def inner_products(samples: Tensor) -> Tensor:
    """[i, j]: the inner product of samples i and j (N, ...)."""
    flat = samples.flatten(1)
    return products(flat, flat)


def distances(samples: Tensor) -> Tensor:
    """[i, j]: the Euclidean distance of samples i and j (N, ...), exactly 0 on the diagonal, else at least ``NEAREST``."""
    flat = full(samples).flatten(1)
    apart = 1 - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").clamp_min(NEAREST) * apart


def centred(matrix: Tensor) -> Tensor:
    """A matrix (N, N) with mean 0 in every row and column."""
    return matrix - matrix.mean(0, keepdim=True) - matrix.mean(1, keepdim=True) + matrix.mean()
