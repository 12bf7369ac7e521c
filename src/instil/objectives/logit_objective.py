"""What losses on logits share: the standardization option, the divergence, the checks, the mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Batch,
    Objective,
    Outputs,
    closest,
    full,
    mean,
)

STANDARD_DEVIATION_EPSILON = 1e-7


def standardize(logits: Tensor) -> Tensor:
    """Logits (..., C) with mean 0 and unbiased standard deviation 1 over the classes (Sun et al., CVPR 2024, Algorithm 1).

    Raises ValueError for fewer than three classes: two standardized logits are always the same two numbers.
    """
    logits = full(logits)
    return (logits - logits.mean(-1, keepdim=True)) / (
        deviation(logits) + STANDARD_DEVIATION_EPSILON
    )


def deviation(logits: Tensor) -> Tensor:
    """Unbiased standard deviation over the classes: (..., C) gives (..., 1). Raises ValueError for fewer than three classes."""
    if logits.shape[-1] < 3:
        raise ValueError(
            f"standardize needs at least 3 classes, not {logits.shape[-1]}: nothing of two logits is left after it"
        )
    return full(logits).std(-1, keepdim=True)


def kl_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities (..., C), summed over the classes: (...). Where the teacher has probability 0 the term is 0."""
    return -expectation(teacher.exp(), student, teacher)


def expectation(weight: Tensor, values: Tensor, less: Tensor | None = None) -> Tensor:
    """Sum of ``weight`` times (``values`` - ``less``), all (..., C), over the classes: (...). Where a weight is 0 the term is 0, even of infinity."""
    if weight.requires_grad or (less is not None and less.requires_grad):
        return (
            weight * (values if less is None else values - less).masked_fill(weight == 0, 0.0)
        ).sum(-1)
    most = torch.finfo(values.dtype).max / 2  # times zero it is zero, as infinity is not

    def weighted(values: Tensor) -> tuple[Tensor, Tensor]:
        if less is None:
            return (values.clamp(-most, most) * weight).sum(-1), weight
        return (values - less.clamp(-most, most)).clamp_(-most, most).mul_(weight).sum(-1), weight

    return with_slope(weighted, values, constant=True)


def with_slope(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], logits: Tensor, constant: bool = False
) -> Tensor:
    """What a function makes of logits (..., C), (...), where it gives the derivative (..., C) too: nothing else is kept, and one pass applies it.

    ``constant``: the derivative does not depend on the logits; else the function, and what it holds, is kept too, to be differentiated again.
    """
    found: Tensor = _WithSlope.apply(function, logits, constant)
    return found


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Tensor], tuple[Tensor, Tensor]],
        logits: Tensor,
        constant: bool,
    ) -> Tensor:
        values, slope = function(logits)
        ctx.function = None if constant else function
        ctx.save_for_backward(logits, slope)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        logits, slope = ctx.saved_tensors
        if torch.is_grad_enabled() and ctx.function is not None:  # to be differentiated again
            _, slope = ctx.function(logits)
        return None, gradient.unsqueeze(-1) * slope, None


def without_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the target class (...) and logits (..., C) with minus infinity in its place; an unlabelled item (-100) gives up class 0."""
    index = target.clamp_min(0).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1), logits.scatter(-1, index, -torch.inf)


def reduced(values: Tensor, reduction: str, target: Tensor | None = None) -> Tensor:
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


class LogitObjective(Objective):
    """A loss on the logits of student and teacher.

    ``standardize``: both sides to mean 0 and standard deviation 1 over the classes first.

    Subclasses define ``loss``; those that need the label inherit from LabelObjective too.
    """

    def __init__(self, standardize: bool = False) -> None:
        super().__init__()
        self.standardize = standardize

    @property
    def handles_unlabelled(self) -> bool:
        """Whether the loss may see unlabelled items, which ``standardize`` may not."""
        return not self.standardize

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """One value an item from logits (..., C); a scalar where the card says ``couples``."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        logits: tuple[Tensor, Tensor] = student["logits"], teacher["logits"]
        if self.standardize:
            logits = standardize(logits[0]), standardize(logits[1])
        return self.loss(*logits, batch)
