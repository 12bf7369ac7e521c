"""Prototypes: unit vectors that stand for clusters of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.directions import l2_normalize, pairwise_dot

ITERATIONS = 10
"""Iterations of k-means, after which few vectors still change their cluster."""


def spherical_kmeans(vectors: Tensor, size: int, iterations: int = ITERATIONS) -> Tensor:
    """Unit mean vectors of clusters by cosine similarity (Dhillon and Modha 2001).

    The first centres are random rows, which are the same in every run. A cluster that loses all its
    vectors keeps its centre.

    Args:
        vectors: (N, D).
        size: number of clusters. Fewer vectors than clusters are repeated.
        iterations: number of iterations.

    Returns:
        (size, D).

    Raises:
        ValueError: without vectors.

    Example:
        >>> import torch
        >>> spherical_kmeans(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]]), 2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    if not len(vectors):
        raise ValueError("vectors: prototypes need embeddings. Expected one or more, got none")
    units = l2_normalize(vectors.detach())
    # Drawn on the CPU, so that every device gets the same rows.
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(0))
    rows = order[torch.arange(size) % len(units)]
    centres = units[rows.to(units.device)]
    for _ in range(iterations):
        nearest = pairwise_dot(units, centres).argmax(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, units)
        has_vectors = torch.bincount(nearest, minlength=size) > 0
        centres = torch.where(has_vectors[:, None], l2_normalize(total), centres)
    return centres
