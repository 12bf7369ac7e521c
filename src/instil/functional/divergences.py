"""Divergences of logits and log-probabilities, one value per item.

None of them has the factor ``temperature ** 2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.autograd import with_precomputed_grad
from instil.functional.logits import without_target
from instil.items.tensor_values import inside_transform


def kl_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities (..., C): (...).

    Classes of teacher probability 0 add 0.
    """
    return -expectation(teacher.exp(), student, teacher)


def expectation(weight: Tensor, values: Tensor, minus: Tensor | None = None) -> Tensor:
    """Sum of ``weight * (values - minus)`` over the classes.

    Args:
        weight: (..., C), usually probabilities.
        values: (..., C), may be infinite.
        minus: (..., C), subtracted from ``values``. None: 0.

    Returns:
        (...). Classes of weight 0 add 0, even where the value is infinite.
    """
    has_grad = weight.requires_grad or (minus is not None and minus.requires_grad)
    if has_grad or inside_transform():
        difference = values if minus is None else values - minus
        return (weight * difference.masked_fill(weight == 0, 0.0)).sum(-1)
    # A finite bound times a weight of 0 is 0; infinity times 0 would be NaN.
    bound = torch.finfo(values.dtype).max / 2

    def weighted(values: Tensor) -> tuple[Tensor, Tensor]:
        if minus is None:
            return (values.clamp(-bound, bound) * weight).sum(-1), weight
        difference = values - minus.clamp(-bound, bound)
        return difference.clamp_(-bound, bound).mul_(weight).sum(-1), weight

    return with_precomputed_grad(weighted, values, constant=True)


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of softmaxes at a temperature.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: softmax temperature, > 0; a tensor where it is learned.

    Returns:
        (...).
    """
    if teacher_logits.requires_grad or isinstance(temperature, Tensor):
        return kl_divergence(
            tempered_log_softmax(teacher_logits, temperature),
            tempered_log_softmax(student_logits, temperature),
        )

    def kl_and_grad(logits: Tensor) -> tuple[Tensor, Tensor]:
        target = tempered_log_softmax(teacher_logits, temperature)
        return _kl_and_grad(target, logits, temperature)

    return with_precomputed_grad(kl_and_grad, student_logits)


def kl_from_log_probs(target: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || student) of log-probabilities and logits.

    Args:
        target: log-probabilities (..., C).
        student_logits: (..., C).
        temperature: softmax temperature of the student, > 0.

    Returns:
        (...).
    """
    if target.requires_grad or isinstance(temperature, Tensor):
        return kl_divergence(target, tempered_log_softmax(student_logits, temperature))
    return with_precomputed_grad(
        lambda logits: _kl_and_grad(target, logits, temperature), student_logits
    )


def _kl_and_grad(
    target: Tensor, student_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    log_student, probability = tempered_log_softmax(student_logits, temperature), target.exp()
    value = -expectation(probability, log_student, target)
    return value, _divide(log_student.exp() - probability, temperature)


def tempered_log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (..., C) of logits at a temperature, in float32 or better."""
    return _divide(logits, temperature).log_softmax(-1)


def _divide(logits: Tensor, temperature: float) -> Tensor:
    return to_float32(logits) if temperature == 1 else to_float32(logits) / temperature


def decoupled_kl(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL of (target, non-target) probabilities, and KL among the non-target classes.

    Zhao et al. 2022, Eq. 6.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...).
        temperature: softmax temperature, > 0.

    Returns:
        Both divergences, (...) each. With two classes the second is 0.
    """
    student_target, student_rest = without_target(_divide(student_logits, temperature), target)
    teacher_target, teacher_rest = without_target(_divide(teacher_logits, temperature), target)
    target_kl = kl_divergence(
        binary_log_probs(teacher_target, teacher_rest),
        binary_log_probs(student_target, student_rest),
    )
    return target_kl, kl_divergence(teacher_rest.log_softmax(-1), student_rest.log_softmax(-1))


def binary_log_probs(target: Tensor, rest: Tensor) -> Tensor:
    """Log-probabilities (..., 2) of the target class and of all others together.

    Args:
        target: logit of the target class (...).
        rest: logits (..., C) with -inf for the target class, as from ``without_target``.
    """
    return torch.stack([target, rest.logsumexp(-1)], -1).log_softmax(-1)


def target_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Student cross-entropy with the label times the teacher's label probability.

    Yang et al. 2023.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); -100 counts as class 0.

    Returns:
        (...).
    """
    student_logits, teacher_logits = to_float32(student_logits), to_float32(teacher_logits)
    index = target.clamp_min(0).unsqueeze(-1)
    confidence = teacher_logits.log_softmax(-1).gather(-1, index).exp()
    return -(confidence * student_logits.log_softmax(-1).gather(-1, index)).squeeze(-1)


def rest_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy of the non-target classes, normalized among themselves (Yang et al. 2023).

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); -100 counts as class 0.
        temperature: softmax temperature, > 0.

    Returns:
        (...).
    """

    def value_and_grad(logits: Tensor) -> tuple[Tensor, Tensor]:
        teacher_rest = without_target(to_float32(teacher_logits), target)[1]
        probability = _divide(teacher_rest, temperature).softmax(-1)
        student_rest = without_target(to_float32(logits), target)[1]
        log_student = tempered_log_softmax(student_rest, temperature)
        grad = _divide(log_student.exp() - probability, temperature)
        return -expectation(probability, log_student), grad

    if teacher_logits.requires_grad:
        return value_and_grad(student_logits)[0]
    return with_precomputed_grad(value_and_grad, student_logits)


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy (N,) of softmaxes of scores (N, K); the teacher's is the target."""
    return -(teacher.softmax(1) * student.log_softmax(1)).sum(1)
