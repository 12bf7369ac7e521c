"""Decoupled distillation: separate weights for target-class and non-target-class knowledge."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds
from instil.functional.divergences import decoupled_kl
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 8.0,
    temperature: Positive = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Decoupled knowledge distillation loss (Zhao et al. 2022, Eq. 7).

    Weighted sum of the KL divergence between (target, non-target) probabilities and the KL
    divergence among the non-target classes, multiplied by ``temperature ** 2``.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        alpha: weight of the target-class term.
        beta: weight of the non-target-class term. With two classes the term is 0.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> dkd_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1]))
        tensor(0.1166)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    tckd, nckd = decoupled_kl(student_logits, teacher_logits, target, temperature)
    return apply_reduction((alpha * tckd + beta * nckd) * temperature**2, reduction, target)


class DKD(LogitObjective):
    """KD split at the target class, so that a confident teacher still transfers the other classes.

    Logits are (..., C).
    """

    items = Items(labelled=True)
    card = Card(
        "Decoupled Knowledge Distillation",
        "https://arxiv.org/abs/2203.08679",
        "CVPR",
        2022,
        source="logits",
        labels=("single",),
        published_weight=1.0,
        weight_setting="mdistiller, CIFAR-100, ResNet8x4 <- ResNet32x4, batches of 64, raised over "
        "20 epochs",
        deviations="The authors' code lowers the target's logit by 1000 and takes the logarithm of "
        "a softmax, which is infinite where the teacher is certain. Here the class is excluded "
        "exactly, in log space. Their warm-up over 20 epochs is a schedule of the weight.",
        equation=r"T^2 \big( \alpha \mathrm{KL}(b^t \Vert b^s) + \beta \mathrm{KL}(q^t \Vert q^s) "
        r"\big), \quad b = (p_y, 1 - p_y), \quad q_c = \frac{p_c}{1 - p_y} \text{ for } c \ne y, "
        r"\quad p = \mathrm{softmax}(z / T)",
        use="When a confident teacher makes kd weak. In kd the knowledge about the other classes "
        "is multiplied by 1 - p_y; here it has its own weight. It needs labels and costs no more "
        "than kd.",
        pitfalls="Tune beta for each pair of networks: 2 for ResNet-56 to ResNet-20, 8 for "
        "ResNet-32x4 to ResNet-8x4 on CIFAR-100. On ImageNet it is 0.5 at T = 1. A large beta from "
        "the first step is unstable: raise the weight over the first epochs. With two classes beta "
        "has no effect. A wrong label overrides the teacher.",
    )

    def __init__(
        self,
        alpha: Annotated[NonNegative, Doc("weight of the target-class term")] = 1.0,
        beta: Annotated[
            NonNegative, Doc("weight of the non-target-class term; no effect with two classes")
        ] = 8.0,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 4.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return dkd_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.alpha,
            self.beta,
            self.temperature,
            "none",
        )
