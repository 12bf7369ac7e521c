"""Standardization, reduction and shape checks of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, mean, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_dims
from instil.items.tensor_values import has_host_values

STANDARD_DEVIATION_EPSILON = 1e-7


def standardize(logits: Tensor) -> Tensor:
    """Logits with mean 0 and unbiased standard deviation 1 over the classes.

    Sun et al., CVPR 2024, Algorithm 1.

    Args:
        logits: (..., C).

    Raises:
        ValueError: for fewer than three classes; two standardized logits are constants.
    """
    logits = to_float32(logits)
    # The mean comes first: the order of the operations is that in which gradients are added.
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / (class_deviation(logits) + STANDARD_DEVIATION_EPSILON)


def class_deviation(logits: Tensor) -> Tensor:
    """Unbiased standard deviation over the classes: (..., C) gives (..., 1).

    Raises:
        ValueError: for fewer than three classes.
    """
    if logits.shape[-1] < 3:
        raise ValueError(
            f"standardize needs at least 3 classes, not {logits.shape[-1]}: two standardized "
            "logits are constants"
        )
    return to_float32(logits).std(-1, keepdim=True)


def clamp_to_finite(values: Tensor, divisor: float = 2.0) -> Tensor:
    """Replace -inf by the lowest finite number over a divisor.

    Impossible classes keep probability 0, but differences and products of them are finite, where
    infinities would give NaN.

    Args:
        values: logits or log-probabilities.
        divisor: a difference of ``divisor`` bounded values does not overflow.
    """
    return values.clamp_min(torch.finfo(values.dtype).min / divisor)


def without_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Split logits into that of the target class and those of the others.

    Args:
        logits: (..., C).
        target: class indices (...); -100 counts as class 0.

    Returns:
        Logit of the target class (...), and logits (..., C) with -inf for the target class.
    """
    index = target.clamp_min(0).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1), logits.scatter(-1, index, -torch.inf)


def apply_reduction(values: Tensor, reduction: str, target: Tensor | None = None) -> Tensor:
    """Reduce one value per item.

    Args:
        values: (...).
        reduction: ``"mean"`` or ``"none"``.
        target: (...). Items of target -100 have the value 0 and do not count in the mean.

    Raises:
        ValueError: for another reduction.
    """
    require_choice("reduction", reduction, ("mean", "none"))
    if target is None:
        return values.mean() if reduction == "mean" else values
    counted = target != UNLABELLED
    values = torch.where(counted, values, 0.0)
    return mean(values, counted.to(values.dtype)) if reduction == "mean" else values


def require_same_logits(student: Tensor, teacher: Tensor, classes: int = 1, dims: int = 1) -> None:
    """Check that logits of student and teacher have one shape.

    Args:
        student: student logits (..., C).
        teacher: teacher logits (..., C).
        classes: smallest number of classes.
        dims: smallest number of dimensions.

    Raises:
        ValueError: if the shapes differ, or there are fewer classes or dimensions.
    """
    require_dims(student, dims, "student_logits")
    if student.shape != teacher.shape:
        raise ValueError(
            f"student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}; "
            "both must be (..., classes) with the same items and classes"
        )
    require_classes(student, classes)


def require_classes(logits: Tensor, classes: int) -> None:
    """Check the number of classes.

    Args:
        logits: (..., C).
        classes: least number of classes.

    Raises:
        ValueError: if there are fewer classes.
    """
    if logits.shape[-1] < classes:
        raise ValueError(
            f"logits {tuple(logits.shape)} have {logits.shape[-1]} classes, and this loss is "
            f"defined for {classes} or more"
        )


def require_class_target(logits: Tensor, target: Tensor) -> None:
    """Check that the target has one class index for every item.

    Args:
        logits: (..., C).
        target: class indices (...).

    Raises:
        ValueError: if the shapes do not fit, the target is floating point, or a target on the CPU
            is not a class of the logits.
    """
    if target.shape != logits.shape[:-1] or target.is_floating_point():
        raise ValueError(
            f"target is {target.dtype} of shape {tuple(target.shape)}; expected class indices "
            f"(integers, -100 for none) of shape {tuple(logits.shape[:-1])} for logits "
            f"{tuple(logits.shape)}"
        )
    require_class_indices(target, logits.shape[-1])


def require_class_indices(target: Tensor, num_classes: int) -> None:
    """Check that labels on the CPU are classes of the logits.

    On another device the check would wait for all work that comes before it.

    Args:
        target: class indices of any shape; -100 for none.
        num_classes: number of classes of the logits.

    Raises:
        ValueError: for another index.
    """
    if not has_host_values(target) or not target.numel():
        return
    # One pass over the labels is enough if all are classes.
    smallest, largest = torch.aminmax(target)
    if smallest >= 0 and largest < num_classes:
        return
    is_wrong = ((target < 0) & (target != UNLABELLED)) | (target >= num_classes)
    if is_wrong.any():
        raise ValueError(
            f"target: not a class of the logits. Expected 0 to {num_classes - 1}, or "
            f"{UNLABELLED} for none, got {int(target[is_wrong][0])}"
        )
