"""Base classes of losses on the nodes and edges of graphs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Objective, Outputs, item_weights, to_float32
from instil.functional.graph import edge_index


class NodeObjective(Objective):
    """A loss on one vector a node: the embedding, or the last of the features."""

    needs: ClassVar = {
        "student": (("embedding", "features"),),
        "teacher": (("embedding", "features"),),
    }

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors (n, D)."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return to_float32(mine[-1] if isinstance(mine, tuple) else mine), to_float32(
            theirs[-1] if isinstance(theirs, tuple) else theirs
        )


class EdgeObjective(NodeObjective):
    """A loss on the edges into each node; nodes without a valid neighbour do not count."""

    def counted(self, batch: Batch) -> Tensor:
        """Which edges join two valid nodes, (E,)."""
        source, target = edge_index(batch)
        valid = item_weights(batch) > 0
        return valid[source] & valid[target]

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        found = torch.zeros_like(weight).index_add(
            0, edge_index(batch)[1], self.counted(batch).to(weight.dtype)
        )
        return torch.where(found > 0, weight, 0.0)
