"""Knowledge distillation on logits of one length, so that confidence does not count."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, Positive, full
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

VARIANCE_EPSILON = 1e-7


def spherical_logits(logits: Tensor, multiplier: float = 2.0) -> Tensor:
    """Centre logits (..., C) and scale them to the length ``multiplier * sqrt(C)``.

    Raises:
        ValueError: for fewer than three classes, where all centred logits have one direction.
    """
    if logits.shape[-1] < 3:
        raise ValueError(f"spherical logits need at least 3 classes, got {logits.shape[-1]}.")
    variance, mean = torch.var_mean(full(logits), dim=-1, correction=0, keepdim=True)
    return multiplier * (full(logits) - mean) * (variance + VARIANCE_EPSILON).rsqrt()


def spherical_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    multiplier: float = 2.0,
    temperature: float = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Spherical knowledge distillation loss (Guo et al. 2021, Section 3).

    ``temperature ** 2`` times the KL divergence from the teacher's to the student's softmax, after
    both logits are centred and scaled to the length ``multiplier * sqrt(C)``.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        multiplier: standard deviation of the logits after scaling, > 0.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there are fewer than three classes.

    Example:
        >>> import torch
        >>> spherical_kd_loss(torch.eye(3)[1:], torch.eye(3)[:2])
        tensor(6.5555)
    """
    require_same_logits(student_logits, teacher_logits)
    student, teacher = (
        (spherical_logits(logits, multiplier) / temperature).log_softmax(-1)
        for logits in (student_logits, teacher_logits)
    )
    return apply_reduction(temperature**2 * kl_divergence(teacher, student), reduction)


class SphericalKD(LogitObjective):
    """Knowledge distillation after the logits of both sides are projected onto one sphere.

    ``multiplier``: standard deviation of the logits after scaling.
    ``temperature``: softmax temperature of both sides.
    """

    card = Card(
        "Reducing the Teacher-Student Gap via Spherical Knowledge Disitllation",
        "https://arxiv.org/abs/2010.07485",
        "arXiv",
        2021,
        source="logits",
        finite_logits=True,
        tasks=("classification",),
        labels=("single",),
        deviations="The paper scales the logits to the teacher's average norm; the authors' code scales them to a standard deviation of 2, which is "
        "the default here. multiplier = average norm / sqrt(C) is the paper's form.",
        equation=r"T^2 \mathrm{KL}\big( \sigma(\hat z^t / T) \Vert \sigma(\hat z^s / T) \big), \quad \hat z = m \, "
        r"\frac{z - \bar z}{\sqrt{\mathrm{var}(z) + 10^{-7}}}",
        use="A teacher that is much larger and more confident than the student: the student matches the direction of the logits and keeps its own "
        "confidence.",
        pitfalls="The student's confidence gets no gradient from this loss, so add the label's cross-entropy; the paper applies that to the scaled "
        "logits too. logit_standardization is the same idea with the unbiased deviation, published later with other weights.",
    )

    def __init__(self, multiplier: Positive = 2.0, temperature: Positive = 4.0):
        super().__init__()
        self.multiplier, self.temperature = multiplier, temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return spherical_kd_loss(student, teacher, self.multiplier, self.temperature, "none")
