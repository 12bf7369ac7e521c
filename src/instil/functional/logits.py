"""Standardization, reduction and shape checks of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import (
    UNLABELLED,
    closest,
    mean,
    to_float32,
)

STANDARD_DEVIATION_EPSILON = 1e-7


def standardize(logits: Tensor) -> Tensor:
    """Logits (..., C) with mean 0 and unbiased standard deviation 1 over the classes (Sun et al., CVPR 2024, Algorithm 1).

    Raises ValueError for fewer than three classes: two standardized logits are always the same two numbers.
    """
    logits = to_float32(logits)
    return (logits - logits.mean(-1, keepdim=True)) / (
        class_deviation(logits) + STANDARD_DEVIATION_EPSILON
    )


def class_deviation(logits: Tensor) -> Tensor:
    """Unbiased standard deviation over the classes: (..., C) gives (..., 1). Raises ValueError for fewer than three classes."""
    if logits.shape[-1] < 3:
        raise ValueError(
            f"standardize needs at least 3 classes, not {logits.shape[-1]}: nothing of two logits is left after it"
        )
    return to_float32(logits).std(-1, keepdim=True)


def without_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the target class (...) and logits (..., C) with minus infinity in its place; an unlabelled item (-100) gives up class 0."""
    index = target.clamp_min(0).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1), logits.scatter(-1, index, -torch.inf)


def apply_reduction(values: Tensor, reduction: str, target: Tensor | None = None) -> Tensor:
    """``mean`` or ``none`` of values, one an item; an item whose target is -100 is 0 and does not count in the mean."""
    if reduction not in ("mean", "none"):
        raise ValueError(
            f"reduction is 'mean' or 'none', not '{reduction}'; {closest(reduction, ('mean', 'none'))}"
        )
    if target is not None:
        counted = target != UNLABELLED
        values = torch.where(counted, values, 0.0)
        return mean(values, counted.to(values.dtype)) if reduction == "mean" else values
    return values.mean() if reduction == "mean" else values


def require_same_logits(student: Tensor, teacher: Tensor, classes: int = 1) -> None:
    """ValueError unless student and teacher have logits of one shape, with at least ``classes`` classes."""
    if student.shape != teacher.shape:
        shapes = f"student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}"
        raise ValueError(f"{shapes}; both must be (..., classes) with the same items and classes")
    require_classes(student, classes)


def require_classes(logits: Tensor, classes: int) -> None:
    """ValueError for logits with fewer classes than the method is defined for."""
    if logits.shape[-1] < classes:
        raise ValueError(
            f"logits {tuple(logits.shape)} have {logits.shape[-1]} classes, and this loss is defined for {classes} or more"
        )


def require_class_target(logits: Tensor, target: Tensor) -> None:
    """ValueError unless the target holds one class index for every item of logits (..., C)."""
    if target.shape != logits.shape[:-1] or target.is_floating_point():
        expected = f"class indices (integers, -100 for none) of shape {tuple(logits.shape[:-1])} for logits {tuple(logits.shape)}"
        raise ValueError(
            f"target is {target.dtype} of shape {tuple(target.shape)}; expected {expected}"
        )
