"""Teacher-bounded regression loss: squared error of samples not yet better than the teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    check_bounds,
    to_float32,
)
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.real_labels import mark_unlabelled, real_target
from instil.items import Items, drop_gradient


@check_bounds
def regression_kd_loss(
    student_predictions: Tensor,
    teacher_predictions: Tensor,
    target: Tensor,
    margin: NonNegative = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Teacher-bounded regression loss (Chen et al. 2017, section 3.3).

    The student's squared error, summed over the outputs, if the error plus ``margin`` exceeds the
    teacher's error; 0 otherwise.

    Args:
        student_predictions: (..., D).
        teacher_predictions: (..., D).
        target: (..., D), or (...) for one output; ``-100`` and NaN mark unlabelled outputs, which
            are left out.
        margin: margin by which the student must be better than the teacher, >= 0.
        reduction: ``"mean"`` over the items with a label, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> target = torch.tensor([[1.0], [2.0]])
        >>> regression_kd_loss(torch.zeros(2, 1), torch.tensor([[3.0], [2.0]]), target)
        tensor(2.)
    """
    require_same_logits(student_predictions, teacher_predictions)
    real, labelled = real_target(student_predictions, target)
    student_predictions = drop_gradient(to_float32(student_predictions), ~labelled)
    # An unlabelled teacher output is replaced, so that NaN or inf in it has no effect.
    bound = torch.where(labelled, to_float32(teacher_predictions), real)
    student_error = _squared_error(student_predictions, real, labelled)
    teacher_error = _squared_error(bound, real, labelled)
    return apply_reduction(
        torch.where(student_error + margin > teacher_error, student_error, 0.0),
        reduction,
        # The reduction reads class labels; any index other than -100 marks an item that counts.
        torch.where(labelled.any(-1), 0, UNLABELLED),
    )


def _squared_error(predictions: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    errors = F.mse_loss(predictions, target, reduction="none")
    return errors.where(labelled, 0.0).sum(-1)


class RegressionKD(Objective):
    """Squared error of the samples on which the student is not yet better than the teacher.

    Reads ``logits`` (..., D) as D real outputs, and ``label`` of the same shape. At a match the
    loss is zero for margin 0, otherwise the student's error.
    """

    items = Items(labelled=True)
    card = Card(
        "Learning Efficient Object Detection Models with Knowledge Distillation",
        "https://papers.nips.cc/paper/"
        "6676-learning-efficient-object-detection-models-with-knowledge-distillation",
        "NIPS",
        2017,
        source="logits",
        tasks=("regression",),
        labels=("real",),
        deviations="The paper adds it to the smooth L1 loss of the label with weight 0.5; the "
        "default margin is our choice. The paper's class-balanced soft cross-entropy is not "
        "included.",
        equation=r"\Vert z^s - y \Vert_2^2 \cdot \mathbb{1} \lbrace \Vert z^s - y \Vert_2^2 + m "
        r"\gt \Vert z^t - y \Vert_2^2 \rbrace",
        use="For real outputs (boxes, poses, depths), which have no soft targets. The teacher "
        "is a bound: samples on which the student is better by the margin m contribute nothing. "
        "It needs labels.",
        pitfalls="The teacher only selects samples and is not imitated, so keep the label loss "
        "(published: weight 0.5, with a smooth L1 loss). The value jumps between zero and the "
        "error at the bound. Squared errors have the squared unit of the labels, so standardize "
        "the labels. A teacher that is worse than the student disables the loss.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": (("logits",),)}

    def __init__(
        self,
        margin: Annotated[
            NonNegative,
            Doc("margin by which the student's squared error must be below the teacher's"),
        ] = 0.0,
    ):
        super().__init__()
        self.margin = margin

    def weight(self, batch: Batch) -> Tensor:
        return super().weight(mark_unlabelled(batch))

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        return regression_kd_loss(
            student_outputs["logits"],
            teacher_outputs["logits"],
            batch["label"],
            self.margin,
            "none",
        )
