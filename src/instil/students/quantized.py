"""Quantisation-aware training: weights are rounded in every forward pass.

Jacob et al., CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Doc

from instil.students.four_bit_floats import mxfp4, nvfp4
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


class RoundedFloat(nn.Module):
    """Parametrisation that rounds weights to a 4-bit floating-point format in blocks.

    Args:
        grid: function that rounds a weight.
    """

    def __init__(self, grid: Callable[[Tensor], Tensor]):
        super().__init__()
        self.grid = grid

    def forward(self, weight: Tensor) -> Tensor:
        """Round weights (O, ...); the gradient is that of the identity (straight through)."""
        with torch.no_grad():
            rounded = self.grid(weight)
        straight_through: Tensor = weight + (rounded - weight).detach()
        return straight_through


FLOAT_FORMATS = {"nvfp4": nvfp4, "mxfp4": mxfp4}


def quantized(
    model: nn.Module,
    bits: Annotated[Literal[8, 4], Doc("bits per weight")] = 8,
    group: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("inputs that share a step. None: all of an output; 32 is usual with 4 bits"),
    ] = None,
    format: Annotated[
        Literal["int", "nvfp4", "mxfp4"],
        Doc(
            "int: integers with a float step. nvfp4: E2M1 numbers with an E4M3 scale per 16 "
            "inputs and a scale per tensor. mxfp4: E2M1 numbers with a power of two per 32 inputs"
        ),
    ] = "int",
) -> nn.Module:
    """Round the weights of linear layers and convolutions, in place.

    Embeddings and a head over tokens keep their weights. The formats are simulated: weights are
    float numbers with the values of the format.

    Raises:
        ValueError: if there is no such layer, its inputs are not a multiple of ``group``, or
            ``group`` is set for a format that has its own.
    """
    if format != "int" and group is not None:
        raise ValueError(f"group: {format} has blocks of its own size. Leave group out")
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
        grid = Rounded(bits, group) if format == "int" else RoundedFloat(FLOAT_FORMATS[format])
        parametrize.register_parametrization(layer, "weight", grid)
    return model
