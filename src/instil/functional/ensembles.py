"""Logits of several teachers and the weights of the teachers."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Outputs, to_float32
from instil.functional.divergences import softened_kl


def members(teacher: Outputs) -> tuple[Outputs, ...]:
    """The outputs of each of several teachers; of one, its own."""
    found: tuple[Outputs, ...] = teacher.get("members", (teacher,))
    return found


def stack_teacher_logits(student: Tensor, teachers: tuple[Outputs, ...]) -> Tensor:
    """Logits of K teachers as (K, ..., C). Raises ValueError where a teacher gives none, or others than the student's (..., C) in shape."""
    for number, member in enumerate(teachers):
        if "logits" not in member:
            raise ValueError(f"teacher {number} gives {', '.join(member)}, and no logits")
        if member["logits"].shape != student.shape:
            shapes = f"teacher {number} has logits {tuple(member['logits'].shape)}, the student {tuple(student.shape)}"
            raise ValueError(
                f"{shapes}; all must be (..., classes) with the same items and classes"
            )
    return torch.stack([to_float32(member["logits"]) for member in teachers])


def require_teacher_stack(student: Tensor, teachers: Tensor) -> None:
    """ValueError unless the teachers' logits are (K, ..., C), K of at least one, for student logits (..., C)."""
    if teachers.shape[1:] != student.shape or not len(teachers):
        expected = f"(K, *{tuple(student.shape)}) for student logits {tuple(student.shape)}"
        raise ValueError(
            f"the teachers' logits, one behind the other, are {tuple(teachers.shape)}; expected {expected}, of the same classes"
        )


def teacher_divergences(student: Tensor, teachers: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) of each teacher: student logits (..., C) and teacher logits (K, ..., C) give (K, ...)."""
    require_teacher_stack(student, teachers)
    return softened_kl(student, teachers, temperature) * temperature**2


def inverse_share_weights(shares: Tensor) -> Tensor:
    """Weights of K teachers that sum to 1, (1 - share) / (K - 1), by shares (K, ...) that sum to 1; a teacher without others has weight 1."""
    return torch.ones_like(shares) if len(shares) == 1 else (1 - shares) / (len(shares) - 1)


def sample_teacher_mask(losses: Tensor, noise: Tensor, drop: float) -> Tensor:
    """Which teachers each sample learns from, 1 or 0, by its losses (N, T): the one of the largest loss, and others where ``noise`` >= ``drop``."""
    largest = torch.nn.functional.one_hot(losses.detach().argmax(1), losses.shape[1])
    return torch.where(noise >= drop, 1, largest).to(losses.dtype)
