"""The label loss: single-label, multi-label or binary, told apart by the shapes."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Average,
    Batch,
    Card,
    LabelObjective,
    Outputs,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.logits import reduced, require_class_target


def cross_entropy_loss(student: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits (..., C) with class indices (...); (...) for reduction ``none``, where -100 gives 0.

    One class, or a target of the logits' shape: binary cross-entropy of the sigmoid, averaged over the labelled classes of the item.
    Raises ValueError where the target's shape fits neither.
    """
    if target.shape == student.shape:
        return _binary(student, target, reduction)
    if student.shape[-1] == 1 and target.shape == student.shape[:-1]:
        return _binary(student, target.unsqueeze(-1), reduction)
    require_class_target(student, target)
    (student,) = drop_unlabelled_gradient(target, student)
    values = F.cross_entropy(
        full(student).reshape(-1, student.shape[-1]),
        target.flatten(),
        reduction="none",
        ignore_index=UNLABELLED,
    )
    return reduced(values.view(target.shape), reduction, target)


def _binary(student: Tensor, target: Tensor, reduction: str) -> Tensor:
    labelled = target != UNLABELLED
    (student,) = drop_unlabelled_gradient(target, full(student))
    values = F.binary_cross_entropy_with_logits(
        student, target.clamp_min(0).to(student.dtype), reduction="none"
    )
    values = torch.where(labelled, values, 0.0).sum(-1) / labelled.sum(-1).clamp_min(1)
    return reduced(values, reduction, torch.where(labelled.any(-1), 0, UNLABELLED))


class CrossEntropy(LabelObjective):
    """The student's logits (..., C) against the label: class indices (...), or one yes or no a class (..., C).

    ``average``: items that the loss is divided by, all of the batch or the labelled ones.
    """

    card = Card(
        "Cross-entropy with the label",
        source="labels",
        zero_at_match=False,
        equation=r"-\log p^s_y",
        use="The supervised part of most recipes, beside any distillation loss that does not hold the label's part itself. Class indices take the "
        "softmax, yes or no for each class takes the sigmoid, and one logit is a binary label.",
        pitfalls="ps_kd, pld and mft stand in place of it: do not add both. Published weights beside kd go from 0.1 (with 0.9 on kd, CIFAR-100) "
        "to 1. With yes or no labels the value is a mean over the classes, so many absent classes make it small.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}
    handles_uncounted = True

    def __init__(self, average: Average = "batch") -> None:
        super().__init__()
        self.average = average

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return cross_entropy_loss(student["logits"], self.counted_label(batch), "none")
