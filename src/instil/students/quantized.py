"""Quantisation-aware training: weights are rounded in every forward pass.

Jacob et al., CVPR 2018.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Doc

from instil.students.layers import output_head


class Rounded(nn.Module):
    """Parametrisation that rounds weights to a symmetric grid.

    Args:
        bits: bits per weight.
        group: number of inputs that share a step. None: all inputs of an output.
    """

    def __init__(self, bits: int, group: int | None):
        super().__init__()
        # Symmetric: the lowest integer of the type is not used, so that a weight and its negative
        # have the same error.
        self.most = 2 ** (bits - 1) - 1
        self.group = group

    def forward(self, weight: Tensor) -> Tensor:
        """Round weights (O, ...); the gradient is that of the identity (straight through)."""
        with torch.no_grad():
            groups = weight.reshape(len(weight), -1, self.group or weight[0].numel())
            largest = groups.abs().amax(-1, keepdim=True)
            # A group of zeros has a step above 0, which avoids 0 / 0.
            step = largest.clamp_min(torch.finfo(weight.dtype).tiny) / self.most
            rounded = ((groups / step).round() * step).view_as(weight)
        straight_through: Tensor = weight + (rounded - weight).detach()
        return straight_through


def quantized(
    model: nn.Module,
    bits: Annotated[Literal[8, 4], Doc("bits per weight")] = 8,
    group: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("inputs that share a step. None: all of an output; 32 is usual with 4 bits"),
    ] = None,
) -> nn.Module:
    """Round the weights of linear layers and convolutions, in place.

    Embeddings and a head over tokens keep their weights.

    Raises:
        ValueError: if there is no such layer, or its inputs are not a multiple of ``group``.
    """
    head = output_head(model)
    layers = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part is not head
    ]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer or convolution to quantise")
    for name, layer in layers:
        num_inputs = layer.weight[0].numel()
        if group is not None and num_inputs % group:
            raise ValueError(
                f"group: '{name}' has {num_inputs} inputs. Expected a multiple of {group}"
            )
        parametrize.register_parametrization(layer, "weight", Rounded(bits, group))
    return model
