"""Normalized distillation: the teacher's target probability weighs the label loss, its other classes are renormalized."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, NonNegative, Positive, full
from instil.objectives.logit_objective import LogitObjective, reduced, require_class_target, require_same_logits, without_target


def nkd_loss(student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 1.0, gamma: float = 1.5, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the target class weighted by the teacher, plus gamma T² times that of the normalized others (Yang et al. 2023).

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. The temperature acts on the others only.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = full(student), full(teacher)
    student_target, student_rest = without_target(student, target)
    teacher_target, teacher_rest = without_target(teacher, target)
    confidence = (teacher_target - teacher.logsumexp(-1)).exp()
    towards_target = confidence * (student.logsumexp(-1) - student_target)
    shares = (teacher_rest / temperature).softmax(-1)
    log_shares = (student_rest / temperature).log_softmax(-1)
    towards_rest = -(shares * torch.where(shares > 0, log_shares, 0.0)).sum(-1)
    return reduced(towards_target + gamma * temperature**2 * towards_rest, reduction, target)


class NKD(LogitObjective, LabelObjective):
    """The label's cross-entropy as sure as the teacher is, and the other classes as it shares them; logits (..., C).

    ``temperature``: divides the logits of the other classes.
    ``gamma``: weight of the other classes.
    """

    card = Card(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
        "https://arxiv.org/abs/2303.13005",
        "ICCV",
        2023,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="A cross-entropy, as in paper and code: at a match the teacher's entropy is left.",
    )

    def __init__(self, temperature: Positive = 1.0, gamma: NonNegative = 1.5, standardize: bool = False):
        super().__init__(standardize)
        self.temperature, self.gamma = temperature, gamma

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return nkd_loss(student, teacher, batch["label"], self.temperature, self.gamma, "none")
