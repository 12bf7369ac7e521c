"""Autograd functions with precomputed gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_precomputed_grad(
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
