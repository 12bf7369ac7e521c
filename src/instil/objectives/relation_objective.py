"""What losses on relations between samples share: which outputs they read, and what stands between the two sides' vectors."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, full
from instil.objectives.adapters import like


class Plain(nn.Module):
    """Both sides' vectors as they are."""

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return student, teacher


class Heads(nn.Module):
    """A learned linear head a side, to one width and unit length: vectors (N, dim)."""

    def __init__(self, student: Tensor, teacher: Tensor, dim: int):
        super().__init__()
        self.student = nn.Linear(student.shape[1], dim, device=student.device, dtype=student.dtype)
        self.teacher = nn.Linear(teacher.shape[1], dim, device=student.device, dtype=student.dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = (
            self.student(student.to(self.student.weight.dtype)),
            self.teacher(teacher.to(self.teacher.weight.dtype)),
        )
        return F.normalize(mine, dim=1), F.normalize(theirs, dim=1)


class Projector(nn.Module):
    """A learned linear map of the student's vectors to the teacher's width, nothing where the widths agree; the teacher's as they are."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        widths = student.shape[1], teacher.shape[1]
        self.student: nn.Module = nn.Identity()
        if widths[0] != widths[1]:
            self.student = nn.Linear(*widths, device=student.device, dtype=student.dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(like(self.student, student)), teacher


class RelationObjective(Objective):
    """A loss on one vector a sample: the embedding, or the logits where there is none.

    A subclass gives ``loss`` and, where something learned stands between the vectors and the loss, ``connect``.
    """

    needs: ClassVar = {"student": (("embedding", "logits"),), "teacher": (("embedding", "logits"),)}
    samples = True

    def __init__(self) -> None:
        super().__init__()
        self.connection: nn.Module = Plain()

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The module that takes both sides' vectors to those that ``loss`` compares."""
        return Plain()

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """One value a sample from vectors (N, D); a scalar where the objective couples."""
        raise NotImplementedError

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the connection."""
        self.connection = self.connect(*self.read(student, teacher))

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors (N, D), in float32 or better."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return full(mine).flatten(1), full(theirs).flatten(1)

    def embed(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors after the connection."""
        mine, theirs = self.connection(*self.read(student, teacher))
        return mine, theirs

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(*self.embed(student, teacher), batch)


class HeadedObjective(RelationObjective):
    """A loss on unit vectors, which a learned linear head of each side makes.

    ``dim``: width of both heads' embeddings.
    """

    def __init__(self, dim: Annotated[int, Ge(2)] = 128):
        super().__init__()
        self.dim = dim

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return Heads(student, teacher, self.dim)


class ProjectedObjective(RelationObjective):
    """A loss on vectors of the teacher's width."""

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return Projector(student, teacher)
