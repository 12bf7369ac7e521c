"""Edges and pairs of nodes of a graph, and softmax over the edges into each node."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, item_weights


def edge_index(batch: Batch) -> Tensor:
    """Source and target node of every edge (2, E), from the batch key ``edge_index``.

    Raises:
        ValueError: if the batch has no edges.
    """
    edges: Tensor | None = batch.get("edge_index")
    if edges is None or edges.ndim != 2 or edges.shape[0] != 2:
        got = (
            f"the batch has {', '.join(batch)}" if edges is None else f"it is {tuple(edges.shape)}"
        )
        raise ValueError(
            f"a loss on a graph needs 'edge_index' (2, E) of sources and targets; {got}"
        )
    return edges


def counted_edges(batch: Batch) -> Tensor:
    """Mask (E,) of the edges between two valid nodes of a batch."""
    source, target = edge_index(batch)
    valid = item_weights(batch) > 0
    return valid[source] & valid[target]


def log_softmax_into(values: Tensor, target: Tensor, num_nodes: int, counted: Tensor) -> Tensor:
    """Log-softmax of edge values among the counted edges into the same node.

    Args:
        values: value of each edge (E,).
        target: target node of each edge (E,).
        num_nodes: number of nodes.
        counted: True for the edges of the softmax (E,).

    Returns:
        (E,), 0 for edges that are not counted.
    """
    logits = torch.where(counted, values, -torch.inf)
    largest = torch.full((num_nodes,), -torch.inf, dtype=values.dtype, device=values.device)
    largest = largest.scatter_reduce(0, target, logits.detach(), "amax")
    # A node without counted edges has the maximum -inf, and -inf - -inf would be NaN.
    shifted = torch.where(counted, values - largest[target].nan_to_num(0, 0, 0), 0.0)
    total = torch.zeros_like(largest).index_add(0, target, torch.where(counted, shifted.exp(), 0.0))
    return shifted - torch.where(counted, total[target], 1.0).log()


def pair_embeddings(embedding: Tensor, pair_position: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of anchors (N, E) and of their candidates (N, D, E).

    Args:
        embedding: embeddings of nodes (n, E).
        pair_position: (N, 1 + D), rows of each anchor and its candidates.
    """
    ends = embedding[pair_position]
    return ends[:, 0], ends[:, 1:]
