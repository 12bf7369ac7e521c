"""Base class of losses on the edges of graphs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Objective, Outputs, to_float32
from instil.functional.graph import counted_edges, edge_index


class EdgeObjective(Objective):
    """Base class of losses on the edges into each node.

    It reads one vector per node: the embedding, or the last features. Nodes without a valid
    neighbour do not count.
    """

    needs: ClassVar = {
        "student": (("embedding", "features"),),
        "teacher": (("embedding", "features"),),
    }

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Node vectors (n, D) of student and teacher, in float32 or better."""
        vectors = []
        for side, outputs in (("student", student), ("teacher", teacher)):
            values = outputs[self.reads[side][0]]
            vectors.append(to_float32(values[-1] if isinstance(values, tuple) else values))
        return vectors[0], vectors[1]

    def counted(self, batch: Batch) -> Tensor:
        """Mask (E,) of the edges between two valid nodes."""
        return counted_edges(batch)

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        edges = self.counted(batch).to(weight.dtype)
        num_edges = torch.zeros_like(weight).index_add(0, edge_index(batch)[1], edges)
        return torch.where(num_edges > 0, weight, 0.0)
