"""Normalized knowledge distillation: weighted label loss plus renormalized non-target classes."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds
from instil.functional.divergences import rest_cross_entropy, target_cross_entropy
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: Positive = 1.0,
    gamma: NonNegative = 1.5,
    reduction: str = "mean",
) -> Tensor:
    """Normalized knowledge distillation loss (Yang et al. 2023).

    Cross-entropy of the target class weighted by the teacher's probability, plus
    ``gamma * temperature ** 2`` times the cross-entropy among the renormalized other classes.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        temperature: softmax temperature of the other classes, > 0.
        gamma: weight of the other classes.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> nkd_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1]))
        tensor(1.6726)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    # The label term is at temperature 1, so only the other term is multiplied by T².
    target_loss = target_cross_entropy(student_logits, teacher_logits, target)
    rest_loss = rest_cross_entropy(student_logits, teacher_logits, target, temperature)
    return apply_reduction(target_loss + gamma * temperature**2 * rest_loss, reduction, target)


class NKD(LogitObjective):
    """Label loss weighted by the teacher, plus cross-entropy among the non-target classes."""

    items = Items(labelled=True)
    card = Card(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with "
        "Normalized Loss and Customized Soft Labels",
        "https://arxiv.org/abs/2303.13005",
        "ICCV",
        2023,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34; with the plain "
        "cross-entropy",
        deviations="The loss is a cross-entropy, as in paper and code: at a match the teacher's "
        "entropy remains.",
        equation=r"-p^t_y \log p^s_y - \gamma T^2 \sum_{c \ne y} q^t_c \log q^s_c, \quad q_c = "
        r"\frac{e^{z_c / T}}{\sum_{k \ne y} e^{z_k / T}}",
        use="Like dkd, for a confident teacher whose probabilities of the other classes should "
        "keep their influence. The label term is weighted by the teacher's confidence, so "
        "samples that the teacher misclassifies contribute less. It needs labels and costs no "
        "more than kd.",
        pitfalls="The authors add the plain cross-entropy. The value does not go to zero at a "
        "match, so it does not measure the distance to the teacher. With two classes the second "
        "term is zero. A low p^t_y removes the label term, while the second term remains.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the non-target classes")
        ] = 1.0,
        gamma: Annotated[NonNegative, Doc("weight of the non-target classes")] = 1.5,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.temperature = temperature
        self.gamma = gamma

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return nkd_loss(
            student_logits, teacher_logits, batch["label"], self.temperature, self.gamma, "none"
        )
