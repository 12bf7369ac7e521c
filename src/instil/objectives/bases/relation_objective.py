"""Base class of losses on relations between samples."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, to_float32
from instil.items import Items
from instil.modules.adapters import IdentityPair


class RelationObjective(Objective):
    """Base class of losses on one vector per sample: the embedding, or the logits if there is none.

    Subclasses define ``loss`` and, for learned parts before the loss, ``connect``.

    Attributes:
        connection: module that ``connect`` built.
    """

    needs: ClassVar = {"student": (("embedding", "logits"),), "teacher": (("embedding", "logits"),)}
    items = Items(per_sample=True)

    def __init__(self) -> None:
        super().__init__()
        self.connection: nn.Module = IdentityPair()

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """Build the module ``(student, teacher) -> (student, teacher)`` before the loss.

        Args:
            student: student vectors (N, D) of a dry batch.
            teacher: teacher vectors (N, D') of a dry batch.
        """
        return IdentityPair()

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Loss of vectors (N, D): one value per sample, or a scalar if the loss couples samples."""
        raise NotImplementedError

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the connection, from a dry batch."""
        self.connection = self.connect(*self.read(student, teacher))

    def read(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Vectors (N, D) of student and teacher, in float32 or better."""
        student_vectors = student[self.reads["student"][0]]
        teacher_vectors = teacher[self.reads["teacher"][0]]
        return to_float32(student_vectors).flatten(1), to_float32(teacher_vectors).flatten(1)

    def embed(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Vectors of student and teacher after the connection."""
        student_vectors, teacher_vectors = self.connection(*self.read(student, teacher))
        return student_vectors, teacher_vectors

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(*self.embed(student, teacher), batch)
