"""Position features of the nodes of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

POSITION_SEED = 0
"""Seed of the randomized decomposition, which is the same for all runs."""
OVERSAMPLING = 10
"""Number of further vectors of the subspace."""
ITERATIONS = 20
"""Number of multiplications by the matrix."""


def position_features(edges: Tensor, num_nodes: int, count: int) -> Tensor:
    """Return position features: a spectral embedding of the regularized adjacency matrix.

    The matrix is ``D^-1/2 (A + t / M) D^-1/2`` for the mean degree ``t`` and the row sums ``D``
    (Amini et al. 2013). Without ``t / M`` its largest eigenvalues belong to small components and
    single nodes. The eigenvectors have root mean square 1 and are multiplied by the absolute values
    of their eigenvalues.

    Args:
        edges: (2, E), source and target.
        num_nodes: number M of nodes.
        count: number of features, below M.

    Returns:
        (M, count), those of the largest absolute eigenvalues first.

    Raises:
        ValueError: if ``count`` is not below the number of nodes.
    """
    if not 0 < count < num_nodes:
        raise ValueError(
            f"positions: {count} is out of range. Expected 1 to {num_nodes - 1} for {num_nodes} "
            "nodes"
        )
    source, target = both = torch.unique(torch.cat([edges, edges.flip(0)], dim=1), dim=1)
    degree = source.bincount(minlength=num_nodes).float()
    mean_degree = degree.mean() if len(source) else torch.tensor(1.0)
    scale = (degree + mean_degree).rsqrt()
    shape = (num_nodes, num_nodes)
    # The indices are valid by construction.
    adjacency = torch.sparse_coo_tensor(
        both, scale[source] * scale[target], shape, check_invariants=False
    ).coalesce()
    common = scale * (mean_degree / num_nodes).sqrt()
    size = min(count + OVERSAMPLING, num_nodes)
    generator = torch.Generator().manual_seed(POSITION_SEED)
    basis = torch.randn(num_nodes, size, generator=generator)
    # Subspace iteration. The spectrum decays slowly; iterations separate its largest values.
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(adjacency @ basis + common[:, None] * (common @ basis)).Q
    small = basis.T @ (adjacency @ basis + common[:, None] * (common @ basis))
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    order = values.abs().argsort(descending=True)[:count]
    position: Tensor = basis @ vectors[:, order] * values[order].abs() * num_nodes**0.5
    return position


def inductive_positions(edges: Tensor, is_observed: Tensor, count: int) -> Tensor:
    """Return position features of a graph with nodes that the training does not know.

    Observed nodes have ``position_features`` of the graph among them. Each other node has the mean
    of its observed neighbours, 0 without one (Tian et al. 2023).

    Args:
        edges: (2, E), source and target, in both directions.
        is_observed: (M,), whether a node belongs to the training.
        count: number of features, below the number of observed nodes.

    Returns:
        (M, count).

    Raises:
        ValueError: if ``count`` is not below the number of observed nodes.
    """
    observed = is_observed.nonzero().flatten()
    row = torch.zeros(len(is_observed), dtype=torch.int64)
    row[observed] = torch.arange(len(observed))
    source, target = edges
    among = row[edges[:, is_observed[source] & is_observed[target]]]
    position = torch.zeros(len(is_observed), count)
    position[observed] = position_features(among, len(observed), count)
    into_new = is_observed[source] & ~is_observed[target]
    source = source[into_new]
    target = target[into_new]
    total = torch.zeros_like(position).index_add(0, target, position[source])
    degree = target.bincount(minlength=len(position)).clamp_min(1)
    return torch.where(is_observed[:, None], position, total / degree[:, None])
