"""Weighted soft labels: KD with sample weights from the label losses of student and teacher."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective

TEACHER_LOSS_EPSILON = 1e-7


@check_bounds
def wsld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: Positive = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Weighted soft label distillation loss (Zhou et al. 2021).

    ``temperature ** 2`` times the KL divergence from teacher to student, with the sample weights of
    ``wsld_weights``.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        temperature: softmax temperature of the KL divergence, > 0.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> wsld_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1]))
        tensor(0.1042)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    weights = wsld_weights(student_logits, teacher_logits, target)
    values = weights * softened_kl(student_logits, teacher_logits, temperature)
    return apply_reduction(values * temperature**2, reduction, target)


def wsld_weights(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """Sample weights ``1 - exp(-student_loss / teacher_loss)``, without gradient.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); the losses are cross-entropies at temperature 1.

    Returns:
        (...), in [0, 1].
    """
    index = target.clamp_min(0).unsqueeze(-1)
    student_loss = _label_cross_entropy(student_logits, index)
    teacher_loss = _label_cross_entropy(teacher_logits, index)
    # expm1 keeps the precision of small ratios.
    return -torch.expm1(-student_loss / (teacher_loss + TEACHER_LOSS_EPSILON))


def _label_cross_entropy(logits: Tensor, index: Tensor) -> Tensor:
    # Detached: a weight that the student could lower would reward a larger label loss.
    return -to_float32(logits).detach().log_softmax(-1).gather(-1, index).squeeze(-1)


class WSLD(LogitObjective):
    """KD with a weight per sample: larger if the student's label loss exceeds the teacher's."""

    items = Items(labelled=True)
    card = Card(
        "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
        "https://arxiv.org/abs/2102.00650",
        "ICLR",
        2021,
        source="logits",
        algorithms=("adaptive",),
        labels=("single",),
        published_weight=2.5,
        weight_setting="the authors' code, ImageNet, T = 2",
        deviations="The code's soft term is a cross-entropy. This loss is the divergence, which "
        "differs by the teacher's entropy and has the same gradient, because no gradient passes "
        "through the weights.",
        equation=r"T^2 \big( 1 - e^{-L^s / L^t} \big) \mathrm{KL}(p^t_T \Vert p^s_T), \quad L = "
        r"-\log p_y",
        use="kd with less weight on samples where the student is already better than the "
        "teacher. There, soft labels add more bias than they reduce variance. It needs labels "
        "and costs no more than kd.",
        pitfalls="A teacher that fits its training set has a loss near zero on it. Then nearly "
        "all weights are 1, and the loss equals kd. The weights decrease as the student learns, "
        "so the balance shifts to the label loss. A noisy label increases the loss of a correct "
        "teacher and removes its weight.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive,
            Doc(
                "softmax temperature of the KL divergence; 2 on ImageNet (with weight 2.5), "
                "4 on CIFAR-100 (with weight 2.25)"
            ),
        ] = 2.0,
    ):
        super().__init__()
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return wsld_loss(student_logits, teacher_logits, batch["label"], self.temperature, "none")
