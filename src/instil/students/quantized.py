"""Weights of few bits while they are trained: the student learns with the rounding that it will be used with (Jacob et al., CVPR 2018)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Rounded(nn.Module):
    """Weights on a symmetric grid of so many ``bits``, with a step of its own for each output, or each ``group`` of its inputs."""

    def __init__(self, bits: int, group: int | None):
        super().__init__()
        self.most, self.group = 2 ** (bits - 1) - 1, group

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest points of the grid; the gradient passes as if they were the weights themselves (straight through)."""
        with torch.no_grad():
            parts = weight.reshape(len(weight), -1, self.group or weight[0].numel())
            step = (
                parts.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
                / self.most
            )
            rounded = ((parts / step).round() * step).view_as(weight)
        straight: Tensor = weight + (rounded - weight).detach()
        return straight


def quantized(
    model: nn.Module, bits: Literal[8, 4] = 8, group: Annotated[int, Ge(1)] | None = None
) -> nn.Module:
    """The model, in place, whose linear layers and convolutions compute with weights of 8 or 4 ``bits``; embeddings and a head over tokens do not.

    ``group``: inputs that share a step (null: all of an output); 32 is usual with 4 bits. Raises ValueError where a layer cannot be cut so.
    """
    asked: Any = model
    head = asked.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part is not head
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layer or convolution to quantise")
    for name, part in found:
        inputs = part.weight[0].numel()
        if group is not None and inputs % group:
            raise ValueError(f"group: the {inputs} inputs of '{name}' are no multiple of {group}")
        parametrize.register_parametrization(part, "weight", Rounded(bits, group))
    return model
