"""Base class of losses on the logits of several teachers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Objective, Outputs
from instil.functional.ensembles import members, stack_teacher_logits


class SeveralTeachersObjective(Objective):
    """A loss of the logits of the student and of each member of an ensemble; a teacher that is no ensemble is one member.

    Subclasses define ``loss``; those that need the label inherit from LabelObjective too.
    """

    needs: ClassVar = {"student": (("logits",),), "teacher": (("members", "logits"),)}

    def loss(self, student: Tensor, teachers: Tensor, batch: Batch) -> Tensor:
        """One value an item, of student logits (..., C) and teacher logits (K, ..., C)."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(
            student["logits"], stack_teacher_logits(student["logits"], members(teacher)), batch
        )
