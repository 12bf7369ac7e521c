"""Position features of the nodes of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

POSITION_SEED = 0
"""Seed of the randomized decomposition, which is the same for all runs."""


def position_features(edges: Tensor, num_nodes: int, count: int) -> Tensor:
    """Return position features: a truncated SVD of the normalized adjacency matrix.

    The matrix is ``D^-1/2 (A + I) D^-1/2``. The left singular vectors have root mean square 1 and
    are multiplied by their singular values.

    Args:
        edges: (2, E), source and target.
        num_nodes: number M of nodes.
        count: number of features, below M.

    Returns:
        (M, count).

    Raises:
        ValueError: if ``count`` is not below the number of nodes.
    """
    if not 0 < count < num_nodes:
        raise ValueError(
            f"positions: {count} is out of range. Expected 1 to {num_nodes - 1} for {num_nodes} "
            "nodes"
        )
    loops = torch.arange(num_nodes).expand(2, -1)
    both = torch.unique(torch.cat([edges, edges.flip(0), loops], dim=1), dim=1)
    source, target = both
    degree = source.bincount(minlength=num_nodes).float()
    values = (degree[source] * degree[target]).rsqrt()
    shape = (num_nodes, num_nodes)
    # The indices are valid by construction.
    normalized = torch.sparse_coo_tensor(both, values, shape, check_invariants=False).coalesce()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(POSITION_SEED)
        # The spectrum decays slowly; more iterations separate its largest values.
        vectors, singular, _ = torch.svd_lowrank(normalized, min(count + 10, num_nodes), niter=10)
    position: Tensor = vectors[:, :count] * singular[:count] * num_nodes**0.5
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
