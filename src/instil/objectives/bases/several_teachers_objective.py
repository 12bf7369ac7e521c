"""Base class of losses on the logits of several teachers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Objective, Outputs
from instil.functional.ensembles import members, stack_teacher_logits


class SeveralTeachersObjective(Objective):
    """Base class of losses on the logits of the student and of each member of an ensemble.

    A single teacher is an ensemble of one member. Subclasses define ``loss``. Those that need the
    label have ``items = Items(labelled=True)``.
    """

    needs: ClassVar = {"student": (("logits",),), "teacher": (("members", "logits"),)}

    def loss(self, student_logits: Tensor, teachers: Tensor, batch: Batch) -> Tensor:
        """Loss of student logits (..., C) and teacher logits (K, ..., C), one value per item."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits = student["logits"]
        teachers = stack_teacher_logits(student_logits, members(teacher))
        return self.loss(student_logits, teachers, batch)
