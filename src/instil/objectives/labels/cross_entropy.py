"""Cross-entropy with single-label, multi-label or binary targets."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Average, Batch, Card, Outputs, to_float32
from instil.functional.logits import apply_reduction, require_class_target
from instil.items import Items, counted_label, drop_unlabelled_gradient
from instil.objectives.bases.class_weighted_objective import ClassWeightedObjective, ClassWeights


def cross_entropy_loss(student_logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits with a label.

    Class indices use the softmax. A target in the shape of the logits uses the binary cross-entropy
    of the sigmoid, averaged over the labelled classes of an item. So do logits of one class.

    Args:
        student_logits: (..., C).
        target: class indices (...), or 0 and 1 for each class (..., C). ``-100`` marks an
            unlabelled item or class, whose loss is 0.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shape of the target does not fit.

    Example:
        >>> import torch
        >>> cross_entropy_loss(torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(1.0514)
    """
    if target.shape == student_logits.shape:
        return _binary_loss(student_logits, target, reduction)
    if student_logits.shape[-1] == 1 and target.shape == student_logits.shape[:-1]:
        return _binary_loss(student_logits, target.unsqueeze(-1), reduction)
    require_class_target(student_logits, target)
    (student_logits,) = drop_unlabelled_gradient(target, student_logits)
    values = F.cross_entropy(
        to_float32(student_logits).reshape(-1, student_logits.shape[-1]),
        target.flatten(),
        reduction="none",
        ignore_index=UNLABELLED,
    )
    return apply_reduction(values.view(target.shape), reduction, target)


def _binary_loss(student_logits: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Binary cross-entropy of logits and target (..., C), averaged over the labelled classes."""
    labelled = target != UNLABELLED
    (student_logits,) = drop_unlabelled_gradient(target, to_float32(student_logits))
    label = target.clamp_min(0).to(student_logits.dtype)
    values = F.binary_cross_entropy_with_logits(student_logits, label, reduction="none")
    values = torch.where(labelled, values, 0.0).sum(-1) / labelled.sum(-1).clamp_min(1)
    return apply_reduction(values, reduction, torch.where(labelled.any(-1), 0, UNLABELLED))


class CrossEntropy(ClassWeightedObjective):
    """Cross-entropy of the student's logits (..., C) with the label.

    The label holds class indices (...), or 0 and 1 for each class (..., C).
    """

    items = Items(labelled=True)
    card = Card(
        "Cross-entropy with the label",
        source="labels",
        zero_at_match=False,
        equation=r"-\log p^s_y",
        use="The supervised part of most recipes, combined with any distillation loss that does "
        "not contain the label's part itself. Class indices use the softmax, 0 and 1 for each "
        "class use the sigmoid, and one logit is a binary label.",
        pitfalls="ps_kd, pld and mft replace it: do not add both. Published weights next to kd "
        "range from 0.1 (with 0.9 for kd, CIFAR-100) to 1. With 0 and 1 for each class the value "
        "is a mean over the classes; a large number of absent classes makes it small.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        average: Annotated[
            Average, Doc("divisor of the loss: all items of the batch, or the labelled ones")
        ] = "batch",
        class_weights: Annotated[
            ClassWeights,
            Doc(
                "factor of the loss of each class, as a list; balanced: inversely proportional to "
                "the frequency of the class in the training labels. The divisor is the sum of the "
                "factors of the items. None: all classes count equally"
            ),
        ] = None,
    ) -> None:
        super().__init__(average, class_weights)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return cross_entropy_loss(student["logits"], counted_label(batch), "none")

    def soft_targets(self, teacher: Outputs, batch: Batch, num_classes: int) -> Tensor:
        """Return probability 1 for the label (N, C)."""
        return F.one_hot(batch["label"].clamp_min(0), num_classes).float()
