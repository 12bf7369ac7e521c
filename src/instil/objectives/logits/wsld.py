"""Soft labels count less where the student already does better than the teacher: the weight trades bias for variance, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, Positive, drop_unlabelled_gradient, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

TEACHER_LOSS_EPSILON = 1e-7


def wsld_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    temperature: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """T² w KL(teacher || student), with the weights of ``wsld_weights`` (Zhou et al. 2021).

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    values = wsld_weights(student, teacher, target) * softened_kl(student, teacher, temperature)
    return apply_reduction(values * temperature**2, reduction, target)


def wsld_weights(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """w = 1 - exp(-L_student / L_teacher), L the cross-entropy with the label at temperature 1: (...), in [0, 1] and without gradient."""
    index = target.clamp_min(0).unsqueeze(-1)
    mine, theirs = (
        -full(logits).detach().log_softmax(-1).gather(-1, index).squeeze(-1)
        for logits in (student, teacher)
    )
    return -torch.expm1(-mine / (theirs + TEACHER_LOSS_EPSILON))


class WSLD(LogitObjective, LabelObjective):
    """KD whose samples are weighted by how much worse the student's label loss is than the teacher's; logits (..., C).

    ``temperature``: divides the logits of the divergence: 2 on ImageNet (with weight 2.5), 4 on CIFAR-100 (with weight 2.25).
    """

    card = Card(
        "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
        "https://arxiv.org/abs/2102.00650",
        "ICLR",
        2021,
        source="logits",
        algorithms=("adaptive",),
        labels=("single",),
        deviations="The code's soft term is a cross-entropy; ours is the divergence, which differs by the teacher's entropy and has the same "
        "gradient, since the weights have none.",
        equation=r"T^2 \big( 1 - e^{-L^s / L^t} \big) \mathrm{KL}(p^t_T \Vert p^s_T), \quad L = -\log p_y",
        use="kd that lets go of samples on which the student already does better than the teacher, where soft labels bring more bias than they "
        "save variance. It needs labels and costs no more than kd.",
        pitfalls="A teacher that fits its training set has a loss near zero on it: then nearly all weights are 1, and this is kd. The weights "
        "fall as the student learns, so the balance shifts to the label loss. A noisy label makes a right teacher look bad and takes its weight.",
    )

    def __init__(self, temperature: Positive = 2.0):
        super().__init__()
        self.temperature = temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return wsld_loss(student, teacher, batch["label"], self.temperature, "none")
