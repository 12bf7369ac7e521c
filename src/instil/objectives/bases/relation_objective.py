"""Base classes of losses on relations between samples."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, to_float32
from instil.modules.adapters import IdentityPair, NormalizedProjections, StudentProjection


class RelationObjective(Objective):
    """A loss on one vector a sample: the embedding, or the logits where there is none.

    A subclass gives ``loss`` and, where something learned stands between the vectors and the loss, ``connect``.
    """

    needs: ClassVar = {"student": (("embedding", "logits"),), "teacher": (("embedding", "logits"),)}
    per_sample = True

    def __init__(self) -> None:
        super().__init__()
        self.connection: nn.Module = IdentityPair()

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The module that takes both sides' vectors to those that ``loss`` compares."""
        return IdentityPair()

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """One value a sample from vectors (N, D); a scalar where the objective couples."""
        raise NotImplementedError

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the connection."""
        self.connection = self.connect(*self.read(student, teacher))

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' vectors (N, D), in float32 or better."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return to_float32(mine).flatten(1), to_float32(theirs).flatten(1)

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
        return NormalizedProjections(student, teacher, self.dim)


class ProjectedObjective(RelationObjective):
    """A loss on vectors of the teacher's width."""

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return StudentProjection(student, teacher)
