"""KD with one temperature per sample, proportional to the spread of its logits."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import (
    STANDARD_DEVIATION_EPSILON,
    apply_reduction,
    class_deviation,
    require_same_logits,
)
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def normkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """NormKD loss (Chi et al. 2023).

    KL divergence from teacher to student. The softmax temperature of each side is ``temperature``
    times the standard deviation of its logits. The value is multiplied by the square of the
    teacher's temperature.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: factor of the standard deviation, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there are fewer than three classes.

    Example:
        >>> import torch
        >>> normkd_loss(torch.eye(4)[1:3], torch.eye(4)[:2])
        tensor(0.3075)
    """
    require_same_logits(student_logits, teacher_logits)
    student_logits, teacher_logits = to_float32(student_logits), to_float32(teacher_logits)
    student_deviation = class_deviation(student_logits)
    teacher_deviation = class_deviation(teacher_logits)
    values = softened_kl(
        student_logits / (student_deviation + STANDARD_DEVIATION_EPSILON),
        teacher_logits / (teacher_deviation + STANDARD_DEVIATION_EPSILON),
        temperature,
    )
    # The factor has no epsilon: items with constant teacher logits have loss 0.
    return apply_reduction(
        values * (temperature * teacher_deviation.squeeze(-1)).square(), reduction
    )


class NormKD(LogitObjective):
    """KD with a separate temperature for each item and side, so that all are equally soft.

    The authors use temperature 1 and weight 0.5, with weight 0.5 for the label loss, on ImageNet.
    """

    card = Card(
        "NormKD: Normalized Logits for Knowledge Distillation",
        "https://arxiv.org/abs/2308.00520",
        "arXiv",
        2023,
        source="logits",
        finite_logits=True,
        algorithms=("adaptive",),
        labels=("single",),
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, T = 1: 0.5 for both losses",
        deviations="As in the code, the factor is the square of the teacher's temperature; the "
        "student's temperature is not part of it.",
        equation=r"(T d^t)^2 \mathrm{KL}\big( \mathrm{softmax}(z^t / (T d^t)) \Vert "
        r"\mathrm{softmax}(z^s / (T d^s)) \big), \quad d = \mathrm{std}_c(z)",
        use="kd without one temperature for all samples. If the spread of the logits differs "
        "much between samples or networks, each distribution is softened equally. It is "
        "logit_standardization with a factor that follows the teacher's spread. It needs no "
        "labels and has no parameters.",
        pitfalls="Samples with widely spread teacher logits count more, with the square of the "
        "spread, so a teacher with another logit scale needs another weight. On CIFAR-100 the "
        "authors use T = 2 with 0.9, and 0.1 for the label loss. It needs at least three classes.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature in standard deviations of the item's logits")
        ] = 1.0,
    ):
        super().__init__()
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return normkd_loss(student_logits, teacher_logits, self.temperature, "none")
