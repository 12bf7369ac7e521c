"""Divergences of logits and log-probabilities: one value per item, without the factor ``temperature ** 2``."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import (
    to_float32,
)
from instil.functional.autograd import with_precomputed_grad
from instil.functional.logits import without_target


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy (N,) of the distributions that scores (N, K) become by a softmax; the teacher's is the target."""
    return -(teacher.softmax(1) * student.log_softmax(1)).sum(1)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the softmaxes at a temperature: logits (..., C) give (...)."""
    if teacher.requires_grad or isinstance(temperature, Tensor):
        return kl_divergence(
            tempered_log_softmax(teacher, temperature), tempered_log_softmax(student, temperature)
        )
    return with_precomputed_grad(
        lambda logits: _kl_and_slope(
            tempered_log_softmax(teacher, temperature), logits, temperature
        ),
        student,
    )


def kl_from(target: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || student) of log-probabilities and of the softmax of logits at a temperature, both (..., C): (...)."""
    if target.requires_grad or isinstance(temperature, Tensor):
        return kl_divergence(target, tempered_log_softmax(student, temperature))
    return with_precomputed_grad(lambda logits: _kl_and_slope(target, logits, temperature), student)


def _kl_and_slope(target: Tensor, student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    mine, weight = tempered_log_softmax(student, temperature), target.exp()
    return -expectation(weight, mine, target), _divided(mine.exp() - weight, temperature)


def tempered_log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of logits (..., C) at a temperature, in full precision."""
    return _divided(logits, temperature).log_softmax(-1)


def _divided(logits: Tensor, temperature: float) -> Tensor:
    return to_float32(logits) if temperature == 1 else to_float32(logits) / temperature


def decoupled_kl(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL of (target, not target), and KL among the other classes (Zhao et al. 2022, Eq. 6): logits (..., C) and target (...) give two (...).

    Among the others of two classes there is one, and the KL is 0.
    """
    student_target, student_rest = without_target(_divided(student, temperature), target)
    teacher_target, teacher_rest = without_target(_divided(teacher, temperature), target)
    of_target = kl_divergence(
        log_two(teacher_target, teacher_rest), log_two(student_target, student_rest)
    )
    return of_target, kl_divergence(teacher_rest.log_softmax(-1), student_rest.log_softmax(-1))


def log_two(target: Tensor, rest: Tensor) -> Tensor:
    """(..., 2): log-probabilities of the target class and of all others together, from what ``without_target`` gives."""
    return torch.stack([target, rest.logsumexp(-1)], -1).log_softmax(-1)


def target_cross_entropy(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The student's cross-entropy with the label, times the teacher's probability of the label (Yang et al. 2023): (...)."""
    student, teacher = to_float32(student), to_float32(teacher)
    index = target.clamp_min(0).unsqueeze(-1)
    confidence = teacher.log_softmax(-1).gather(-1, index).exp()
    return -(confidence * student.log_softmax(-1).gather(-1, index)).squeeze(-1)


def rest_cross_entropy(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy of the classes other than the label, normalized among themselves, at a temperature (Yang et al. 2023): (...)."""

    def crossed(student: Tensor) -> tuple[Tensor, Tensor]:
        shares = _divided(without_target(to_float32(teacher), target)[1], temperature).softmax(-1)
        mine = tempered_log_softmax(without_target(to_float32(student), target)[1], temperature)
        return -expectation(shares, mine), _divided(mine.exp() - shares, temperature)

    return crossed(student)[0] if teacher.requires_grad else with_precomputed_grad(crossed, student)


def kl_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities (..., C), summed over the classes: (...). Where the teacher has probability 0 the term is 0."""
    return -expectation(teacher.exp(), student, teacher)


def expectation(weight: Tensor, values: Tensor, less: Tensor | None = None) -> Tensor:
    """Sum of ``weight`` times (``values`` - ``less``), all (..., C), over the classes: (...). Where a weight is 0 the term is 0, even of infinity."""
    if weight.requires_grad or (less is not None and less.requires_grad):
        return (
            weight * (values if less is None else values - less).masked_fill(weight == 0, 0.0)
        ).sum(-1)
    most = torch.finfo(values.dtype).max / 2  # times zero it is zero, as infinity is not

    def weighted(values: Tensor) -> tuple[Tensor, Tensor]:
        if less is None:
            return (values.clamp(-most, most) * weight).sum(-1), weight
        return (values - less.clamp(-most, most)).clamp_(-most, most).mul_(weight).sum(-1), weight

    return with_precomputed_grad(weighted, values, constant=True)
