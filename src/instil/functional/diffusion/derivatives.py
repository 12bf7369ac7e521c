"""Derivatives of networks along a direction, by forward-mode differentiation."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def value_and_derivative(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Value of a function and its derivative along a direction of its inputs.

    Neither has a gradient. All operations of the function need forward-mode derivatives.

    Args:
        function: function of the inputs.
        inputs: arguments.
        direction: tangent of each argument, of the same shape.

    Returns:
        Value and derivative, of one shape.

    Example:
        >>> inputs, direction = (torch.tensor([3.0]),), (torch.tensor([2.0]),)
        >>> value_and_derivative(lambda x: x * x, inputs, direction)
        (tensor([9.]), tensor([12.]))
    """
    # Fused attention has no forward-mode derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch compiles the decompositions of forward mode by an interface that it deprecates.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        value: Tensor
        derivative: Tensor
        value, derivative = torch.func.jvp(function, inputs, direction)[:2]
    return value, derivative
