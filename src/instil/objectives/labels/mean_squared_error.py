"""Mean squared error with real labels."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Average, Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.real_labels import mark_unlabelled, real_target, unlabelled_mask
from instil.items import Items, drop_gradient


def mean_squared_error_loss(
    student_outputs: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared error, averaged over the labelled outputs of each item.

    Args:
        student_outputs: (..., D).
        target: labels (..., D), or (...) for one output; -100 or NaN for an unlabelled output. The
            loss of an item without any labelled output is 0.
        reduction: ``"mean"`` over the items with a labelled output, or ``"none"`` (one value per
            item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> mean_squared_error_loss(torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, -100.0]]))
        tensor(5.7500)
    """
    label, labelled = real_target(student_outputs, target)
    student_outputs = drop_gradient(to_float32(student_outputs), ~labelled)
    squares = F.mse_loss(student_outputs, label, reduction="none").where(labelled, 0.0).sum(-1)
    values = squares / labelled.sum(-1).clamp_min(1)
    return apply_reduction(values, reduction, torch.where(labelled.any(-1), 0, UNLABELLED))


class MeanSquaredError(Objective):
    """Mean squared error of the student's real outputs ``logits`` (..., D).

    The ``label`` has the same shape; -100 or NaN marks an unlabelled output.
    """

    items = Items(labelled=True)
    card = Card(
        "Mean squared error with the label",
        source="labels",
        tasks=("regression",),
        labels=("real",),
        zero_at_match=False,
        equation=r"\frac{1}{D} \sum_{d=1}^{D} (z^s_d - y_d)^2",
        use="The supervised part of a recipe for real outputs (poses, depths, prices). Combine it "
        "with a loss that learns from the teacher, or use it alone as the baseline. Unlabelled "
        "outputs of a sample are excluded from its mean.",
        pitfalls="Squared errors have the square of the labels' unit: standardize every output, or "
        "the largest one dominates. A few wrong labels dominate the batch as well. regression_kd "
        "sums over the D outputs; this loss averages.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        average: Annotated[
            Average, Doc("divisor of the loss: all samples of the batch, or the labelled ones")
        ] = "batch",
    ) -> None:
        super().__init__()
        self.average = average
        self.items = Items(labelled=True, average=average)

    def weight(self, batch: Batch) -> Tensor:
        return super().weight(mark_unlabelled(batch))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return mean_squared_error_loss(student["logits"], batch["label"], "none")

    def real_targets(self, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the labels (N, D)."""
        label = to_float32(batch["label"])
        is_labelled = ~unlabelled_mask(label)
        is_partial = is_labelled.any(-1) & ~is_labelled.all(-1)
        if is_partial.any():
            row = int(is_partial.nonzero()[0])
            raise ValueError(
                f"row {row} has labels for some of its outputs only. Expected all or none, because "
                "a weight belongs to a whole row"
            )
        return label
