"""The label loss of real outputs: the mean of their squared errors."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Average, Batch, Card, Outputs, drop_gradient, full
from instil.functional.logits import reduced
from instil.functional.real_labels import real_target
from instil.objectives.bases.real_label_objective import RealLabelObjective


def mean_squared_error_loss(student: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared errors of outputs (..., D), averaged over the known ones of an item; (...) for reduction ``none``.

    The target has the outputs' shape, or (...) for one output. What is -100 or not a number in it is unknown; an item without any known output
    is 0 and does not count. Raises ValueError where shapes do not fit.
    """
    wanted, known = real_target(student, target)
    student = drop_gradient(full(student), ~known)
    squares = F.mse_loss(student, wanted, reduction="none").where(known, 0.0).sum(-1)
    return reduced(
        squares / known.sum(-1).clamp_min(1), reduction, torch.where(known.any(-1), 0, UNLABELLED)
    )


class MeanSquaredError(RealLabelObjective):
    """The student's real outputs ``logits`` (..., D) against a ``label`` of their shape; -100 or NaN for unknown.

    ``average``: samples that the loss is divided by, all of the batch or the labelled ones.
    """

    card = Card(
        "Mean squared error with the label",
        source="labels",
        tasks=("regression",),
        labels=("real",),
        zero_at_match=False,
        equation=r"\frac{1}{D} \sum_{d=1}^{D} (z^s_d - y_d)^2",
        use="The supervised part of a recipe for real outputs (poses, depths, prices), beside a loss that learns from the teacher, or alone as its "
        "baseline. Outputs that are unknown for a sample are left out of its mean.",
        pitfalls="Squared errors carry the square of the labels' unit: standardize every output, or the largest rules. A few wrong labels rule the "
        "batch as well. regression_kd sums over the D outputs where this averages.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(self, average: Average = "batch") -> None:
        super().__init__()
        self.average = average

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return mean_squared_error_loss(student["logits"], batch["label"], "none")
