"""Logits of several teachers, and weights of the teachers."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Outputs, to_float32
from instil.functional.divergences import softened_kl


def members(teacher: Outputs) -> tuple[Outputs, ...]:
    """Outputs of each teacher of an ensemble. A single teacher is an ensemble of one member."""
    outputs: tuple[Outputs, ...] = teacher.get("members", (teacher,))
    return outputs


def stack_teacher_logits(student: Tensor, teachers: tuple[Outputs, ...]) -> Tensor:
    """Stack the logits of K teachers.

    Args:
        student: student logits (..., C).
        teachers: outputs of the teachers.

    Returns:
        (K, ..., C), in float32 or better.

    Raises:
        ValueError: if a teacher has no logits, or logits of another shape than the student.
    """
    for index, member in enumerate(teachers):
        if "logits" not in member:
            raise ValueError(f"teacher {index} gives {', '.join(member)}, and no logits")
        if member["logits"].shape != student.shape:
            raise ValueError(
                f"teacher {index} has logits {tuple(member['logits'].shape)}, the student "
                f"{tuple(student.shape)}; all must be (..., classes) with the same items and "
                "classes"
            )
    return torch.stack([to_float32(member["logits"]) for member in teachers])


def require_teacher_stack(student: Tensor, teachers: Tensor) -> None:
    """Check the shape of stacked teacher logits.

    Args:
        student: student logits (..., C).
        teachers: teacher logits (K, ..., C).

    Raises:
        ValueError: if the shapes do not fit or K is 0.
    """
    if teachers.shape[1:] != student.shape or not len(teachers):
        raise ValueError(
            f"the teachers' logits, one behind the other, are {tuple(teachers.shape)}; expected "
            f"(K, *{tuple(student.shape)}) for student logits {tuple(student.shape)}, of the same "
            "classes"
        )


def teacher_divergences(student: Tensor, teachers: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of each teacher, times ``temperature ** 2``.

    Args:
        student: student logits (..., C).
        teachers: teacher logits (K, ..., C).
        temperature: softmax temperature.

    Returns:
        (K, ...).
    """
    require_teacher_stack(student, teachers)
    return softened_kl(student, teachers, temperature) * temperature**2


def inverse_share_weights(shares: Tensor) -> Tensor:
    """Weights of K teachers that favour small shares: ``(1 - share) / (K - 1)``.

    Args:
        shares: (K, ...), with sum 1 over the teachers.

    Returns:
        (K, ...), with sum 1 over the teachers; 1 for a single teacher.
    """
    if len(shares) == 1:
        return torch.ones_like(shares)
    return (1 - shares) / (len(shares) - 1)


def sample_teacher_mask(losses: Tensor, noise: Tensor, drop: float) -> Tensor:
    """Sample the teachers of each sample; the teacher with the largest loss always stays.

    Args:
        losses: loss of each sample and teacher (N, T).
        noise: uniform random numbers (N, T).
        drop: probability of leaving a teacher out.

    Returns:
        (N, T), 1 for the teachers that stay and 0 for the others.
    """
    largest = torch.nn.functional.one_hot(losses.detach().argmax(1), losses.shape[1])
    return torch.where(noise >= drop, 1, largest).to(losses.dtype)
