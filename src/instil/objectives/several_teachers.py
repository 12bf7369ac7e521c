"""What losses of several teachers share: the teachers' logits side by side, and weights that favour those with the smaller share of something."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Objective, Outputs, full
from instil.objectives.divergences import softened_kl


def members(teacher: Outputs) -> tuple[Outputs, ...]:
    """The outputs of each of several teachers; of one, its own."""
    found: tuple[Outputs, ...] = teacher.get("members", (teacher,))
    return found


def side_by_side(student: Tensor, teachers: tuple[Outputs, ...]) -> Tensor:
    """Logits of K teachers as (K, ..., C). Raises ValueError where a teacher gives none, or others than the student's (..., C) in shape."""
    for number, member in enumerate(teachers):
        if "logits" not in member:
            raise ValueError(f"teacher {number} gives {', '.join(member)}, and no logits")
        if member["logits"].shape != student.shape:
            shapes = f"teacher {number} has logits {tuple(member['logits'].shape)}, the student {tuple(student.shape)}"
            raise ValueError(
                f"{shapes}; all must be (..., classes) with the same items and classes"
            )
    return torch.stack([full(member["logits"]) for member in teachers])


def require_several(student: Tensor, teachers: Tensor) -> None:
    """ValueError unless the teachers' logits are (K, ..., C), K of at least one, for student logits (..., C)."""
    if teachers.shape[1:] != student.shape or not len(teachers):
        expected = f"(K, *{tuple(student.shape)}) for student logits {tuple(student.shape)}"
        raise ValueError(
            f"the teachers' logits, one behind the other, are {tuple(teachers.shape)}; expected {expected}, of the same classes"
        )


def divergences(student: Tensor, teachers: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) of each teacher: student logits (..., C) and teacher logits (K, ..., C) give (K, ...)."""
    require_several(student, teachers)
    return softened_kl(student, teachers, temperature) * temperature**2


def favour_small(shares: Tensor) -> Tensor:
    """Weights of K teachers that sum to 1, (1 - share) / (K - 1), by shares (K, ...) that sum to 1; a teacher without others has weight 1."""
    return torch.ones_like(shares) if len(shares) == 1 else (1 - shares) / (len(shares) - 1)


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
            student["logits"], side_by_side(student["logits"], members(teacher)), batch
        )
