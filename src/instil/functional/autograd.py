"""Autograd functions with precomputed gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instil.items.tensor_values import inside_transform


def with_precomputed_grad(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], logits: Tensor, constant: bool = False
) -> Tensor:
    """Apply a function that returns its values and their gradient as one autograd operation.

    The forward pass keeps the logits and the gradient only. Inside the transforms of ``torch.func``
    the values are differentiated as usual.

    Args:
        function: ``logits -> (values (...), gradient (..., C) with respect to the logits)``.
        logits: (..., C).
        constant: True if the gradient does not depend on the logits. False: the function, and
            what it holds, is kept too, for a second derivative.

    Returns:
        (...).
    """
    if inside_transform():
        return function(logits)[0]
    values: Tensor = _PrecomputedGrad.apply(function, logits, constant)
    return values


class _PrecomputedGrad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Tensor], tuple[Tensor, Tensor]],
        logits: Tensor,
        constant: bool,
    ) -> Tensor:
        values, grad = function(logits)
        ctx.function = None if constant else function
        ctx.save_for_backward(logits, grad)
        return values

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None]:
        logits, grad = ctx.saved_tensors
        if torch.is_grad_enabled() and ctx.function is not None:
            # A second derivative needs the gradient as a function of the logits.
            _, grad = ctx.function(logits)
        return None, grad_output.unsqueeze(-1) * grad, None
