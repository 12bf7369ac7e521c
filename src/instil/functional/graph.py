"""Edges of a graph and softmax over the edges into each node."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch


def edge_index(batch: Batch) -> Tensor:
    """``edge_index`` (2, E), source and target of every edge. Raises ValueError where the batch has none."""
    edges: Tensor | None = batch.get("edge_index")
    if edges is None or edges.ndim != 2 or edges.shape[0] != 2:
        found = (
            f"the batch has {', '.join(batch)}" if edges is None else f"it is {tuple(edges.shape)}"
        )
        raise ValueError(
            f"a loss on a graph needs 'edge_index' (2, E) of sources and targets; {found}"
        )
    return edges


def log_softmax_into(values: Tensor, target: Tensor, number: int, counted: Tensor) -> Tensor:
    """Log-softmax of values (E,) among the counted edges with the same target node, of ``number``: (E,), 0 where an edge is not counted."""
    kept = torch.where(counted, values, -torch.inf)
    largest = torch.full(
        (number,), -torch.inf, dtype=values.dtype, device=values.device
    ).scatter_reduce(0, target, kept.detach(), "amax")
    shifted = torch.where(counted, values - largest[target].nan_to_num(0, 0, 0), 0.0)
    total = torch.zeros_like(largest).index_add(0, target, torch.where(counted, shifted.exp(), 0.0))
    return shifted - torch.where(counted, total[target], 1.0).log()
