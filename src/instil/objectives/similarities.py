"""How alike or how far apart the samples of a batch are: the matrices (N, N) that losses on relations compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import full

NEAREST = 1e-6  # samples nearer than this have no direction, and no gradient through their distance


def unit(samples: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Samples (N, ...) as vectors (N, D) of length one; a vector of zeros stays one."""
    return F.normalize(full(samples).flatten(1), dim=1, eps=epsilon)


def inner_products(samples: Tensor, others: Tensor | None = None) -> Tensor:
    """[i, j]: the inner product of sample i (N, ...) with sample j of ``others`` (M, ...), of the samples themselves where there are none."""
    flat = full(samples).flatten(1)
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ (flat if others is None else full(others).flatten(1)).T


def distances(samples: Tensor) -> Tensor:
    """[i, j]: the Euclidean distance of samples i and j (N, ...), exactly 0 on the diagonal, else at least ``NEAREST``."""
    flat = full(samples).flatten(1)
    apart = 1 - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").clamp_min(NEAREST) * apart


def centred(matrix: Tensor) -> Tensor:
    """A matrix (N, N) with mean 0 in every row and column."""
    return matrix - matrix.mean(0, keepdim=True) - matrix.mean(1, keepdim=True) + matrix.mean()
