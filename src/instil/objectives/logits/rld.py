"""Refined logit distillation: label-corrected confidence and masked class correlation."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.divergences import binary_log_probs, expectation, kl_divergence
from instil.functional.logits import (
    apply_reduction,
    require_class_target,
    require_same_logits,
    without_target,
)
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def rld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 8.0,
    temperature: Positive = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Refined logit distillation loss (Sun et al. 2025).

    ``temperature ** 2`` times the weighted sum of two KL divergences. Sample confidence compares
    the teacher's (top class, rest) with the student's (label, rest). Masked correlation compares
    the classes whose teacher logit is below the label's; it is 0 if there are none.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        alpha: weight of the sample confidence.
        beta: weight of the masked correlation.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> rld_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.1166)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    student, teacher = (
        to_float32(student_logits) / temperature,
        to_float32(teacher_logits) / temperature,
    )
    confidence = kl_divergence(
        binary_log_probs(*without_target(teacher, teacher.argmax(-1))),
        binary_log_probs(*without_target(student, target)),
    )
    correlation = _masked_correlation(student, teacher, target)
    return apply_reduction(
        (alpha * confidence + beta * correlation) * temperature**2, reduction, target
    )


def _masked_correlation(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """KL divergence among the classes (..., C) that the teacher ranks below the label: (...)."""
    label_logit = teacher.gather(-1, target.clamp_min(0).unsqueeze(-1))
    # Classes with teacher probability 0 contribute nothing: at least one class must be possible.
    possible = teacher.masked_fill(teacher == -torch.inf, torch.inf)
    has_classes = possible.amin(-1, keepdim=True) < label_logit
    # Without such a class nothing is masked, which keeps the discarded value and gradient finite.
    masked = teacher >= torch.where(has_classes, label_logit, torch.inf)
    student = torch.where(masked, -torch.inf, student)
    teacher = torch.where(masked, -torch.inf, teacher)
    correlation = -expectation(
        teacher.softmax(-1), student.log_softmax(-1), teacher.log_softmax(-1)
    )
    return torch.where(has_classes.squeeze(-1), correlation, 0.0)


class RLD(LogitObjective):
    """KD from a teacher refined by the label: no wrong class is taught; logits (..., C)."""

    items = Items(labelled=True)
    card = Card(
        "Knowledge Distillation with Refined Logits",
        "https://arxiv.org/abs/2408.07703",
        "ICCV",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, T = 4, raised over 20 epochs",
        deviations="One temperature for both terms, as in the authors' runs. At a match the "
        "sample confidence remains for items whose label is not the teacher's top class. The "
        "authors' warm-up over 20 epochs is a schedule of the weight.",
        equation=r"T^2 \big( \alpha \mathrm{KL}(b^t \Vert b^s) + \beta \mathrm{KL}(q^t \Vert "
        r"q^s) \big), \quad b^t = (p^t_k, 1 - p^t_k), k = \arg\max_c z^t_c, \quad b^s = (p^s_y, "
        r"1 - p^s_y), \quad q = \mathrm{softmax}(z / T) \text{ over } \lbrace c : z^t_c \lt "
        r"z^t_y \rbrace",
        use="dkd for a teacher that makes errors on the training samples. Classes that the "
        "teacher ranks above the label are left out, and its confidence is transferred to the "
        "label. It needs labels and costs no more than kd.",
        pitfalls="If the teacher ranks the label low, the second term has few classes, and none if "
        "the label is last. On ImageNet the authors use beta 0.5 at T = 1 for ResNet18 <- "
        "ResNet34. A noisy label removes the best classes of a correct teacher.",
    )

    def __init__(
        self,
        alpha: Annotated[NonNegative, Doc("weight of the sample confidence")] = 1.0,
        beta: Annotated[NonNegative, Doc("weight of the masked correlation")] = 8.0,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 4.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return rld_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.alpha,
            self.beta,
            self.temperature,
            "none",
        )
