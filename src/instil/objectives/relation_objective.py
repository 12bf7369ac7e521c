"""What losses on relations between samples share: which outputs they read, and the heads onto a common sphere."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, full


class RelationObjective(Objective):
    """A loss on one vector a sample: the embedding, or the logits where there is none. A subclass gives ``loss``."""

    needs: ClassVar = {"student": (("embedding", "logits"),), "teacher": (("embedding", "logits"),)}
    samples = True

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors (N, D), in float32 or better."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return full(mine).flatten(1), full(theirs).flatten(1)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """One value a sample from vectors (N, D); a scalar where the objective couples."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(*self.read(student, teacher), batch)


class HeadedObjective(RelationObjective):
    """A loss on vectors that a learned linear head of each side brings to one width and unit length.

    ``dim``: width of both heads' embeddings.
    """

    def __init__(self, dim: Annotated[int, Ge(2)] = 128):
        super().__init__()
        self.dim = dim

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One linear head a side."""
        mine, theirs = self.read(student, teacher)
        self.student_head = nn.Linear(mine.shape[1], self.dim, device=mine.device, dtype=mine.dtype)
        self.teacher_head = nn.Linear(theirs.shape[1], self.dim, device=mine.device, dtype=mine.dtype)

    def embed(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' embeddings as unit vectors (N, dim)."""
        heads, sides = (self.student_head, self.teacher_head), self.read(student, teacher)
        mine, theirs = (head(side.to(head.weight.dtype)) for head, side in zip(heads, sides, strict=True))
        return F.normalize(mine, dim=1), F.normalize(theirs, dim=1)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(*self.embed(student, teacher), batch)


def projector(student: Tensor, teacher: Tensor) -> nn.Module:
    """A learned linear map of vectors like ``student`` (N, D) to the width of ``teacher``; nothing where the widths agree."""
    if student.shape[1] == teacher.shape[1]:
        return nn.Identity()
    return nn.Linear(student.shape[1], teacher.shape[1], device=student.device, dtype=full(student).dtype)
