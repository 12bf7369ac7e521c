"""What losses on graphs share: the edges, a value of every edge, and a softmax over the edges into each node."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Objective, Outputs, full, items


def edges_of(batch: Batch) -> Tensor:
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


class NodeObjective(Objective):
    """A loss on one vector a node: the embedding, or the last of the features."""

    needs: ClassVar = {
        "student": (("embedding", "features"),),
        "teacher": (("embedding", "features"),),
    }

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors (n, D)."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return full(mine[-1] if isinstance(mine, tuple) else mine), full(
            theirs[-1] if isinstance(theirs, tuple) else theirs
        )


class EdgeObjective(NodeObjective):
    """A loss on the edges into each node; nodes without a valid neighbour do not count."""

    def counted(self, batch: Batch) -> Tensor:
        """Which edges join two valid nodes, (E,)."""
        source, target = edges_of(batch)
        valid = items(batch) > 0
        return valid[source] & valid[target]

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        found = torch.zeros_like(weight).index_add(
            0, edges_of(batch)[1], self.counted(batch).to(weight.dtype)
        )
        return torch.where(found > 0, weight, 0.0)
