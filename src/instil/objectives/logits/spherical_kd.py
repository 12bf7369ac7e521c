"""KD on logits scaled to one length, so that confidence has no influence."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
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
        raise ValueError(
            f"logits: too few classes. Expected 3 classes or more, got {logits.shape[-1]}."
        )
    # The epsilon is inside the root: constant logits have a finite gradient.
    variance, mean = torch.var_mean(to_float32(logits), dim=-1, correction=0, keepdim=True)
    return multiplier * (to_float32(logits) - mean) * (variance + VARIANCE_EPSILON).rsqrt()


@check_bounds
def spherical_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    multiplier: Positive = 2.0,
    temperature: Positive = 4.0,
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
    log_student = (spherical_logits(student_logits, multiplier) / temperature).log_softmax(-1)
    log_teacher = (spherical_logits(teacher_logits, multiplier) / temperature).log_softmax(-1)
    return apply_reduction(temperature**2 * kl_divergence(log_teacher, log_student), reduction)


class SphericalKD(LogitObjective):
    """KD after the logits of both sides are projected onto one sphere."""

    card = Card(
        "Reducing the Teacher-Student Gap via Spherical Knowledge Disitllation",
        "https://arxiv.org/abs/2010.07485",
        "arXiv",
        2021,
        source="logits",
        finite_logits=True,
        tasks=("classification",),
        labels=("single",),
        deviations="The paper scales the logits to the teacher's average norm, which is "
        "multiplier = average norm / sqrt(C). The README of the authors' code scales both to a "
        "standard deviation of 2, the default here; their script scales the student's logits of "
        "a sample to the deviation of the teacher's.",
        equation=r"T^2 \mathrm{KL}\big( \sigma(\hat z^t / T) \Vert \sigma(\hat z^s / T) \big), "
        r"\quad \hat z = m \, \frac{z - \bar z}{\sqrt{\mathrm{var}(z) + 10^{-7}}}",
        use="For a teacher that is much larger and more confident than the student. The student "
        "matches the direction of the logits and keeps its own confidence.",
        pitfalls="The student's confidence gets no gradient from this loss, so add the label's "
        "cross-entropy; the paper applies that to the scaled logits too. The method "
        "logit_standardization is the same idea with the unbiased deviation, published later "
        "with other weights.",
    )

    def __init__(
        self,
        multiplier: Annotated[
            Positive, Doc("standard deviation of the logits after scaling")
        ] = 2.0,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 4.0,
    ):
        super().__init__()
        self.multiplier = multiplier
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return spherical_kd_loss(
            student_logits, teacher_logits, self.multiplier, self.temperature, "none"
        )
