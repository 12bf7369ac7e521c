"""Where a feature map is strong: which positions, and which channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32

FAINTEST = 1e-20
"""A strength below this is not scaled up: the gradient would overflow."""


def attention_map(stage: Tensor, power: float = 2.0) -> Tensor:
    """Where a map (N, C, H, W) is strong: the channels' mean of abs(x) ** power, flat and of unit length, (N, H * W)."""
    stage = to_float32(stage)
    if power != 2:
        largest = stage.detach().abs().amax((1, 2, 3), keepdim=True)
        stage = stage / largest.clamp_min(
            torch.finfo(stage.dtype).tiny
        )  # unit length forgets the scale, powers overflow
    strength = (stage.square() if power == 2 else stage.abs().pow(power)).sum(1).flatten(1)
    return F.normalize(
        strength / strength.detach().amax(1, keepdim=True).clamp_min(FAINTEST), dim=1
    )


def position_strength(stage: Tensor) -> Tensor:
    """The channels' mean of abs(x) of a map (N, C, H, W): (N, 1, H, W)."""
    return to_float32(stage).abs().mean(1, keepdim=True)


def channel_strength(stage: Tensor) -> Tensor:
    """The positions' mean of abs(x) of a map (N, C, H, W): (N, C, 1, 1)."""
    return to_float32(stage).abs().mean((2, 3), keepdim=True)


def attention_weights(strength: Tensor, temperature: float) -> Tensor:
    """How much each position, or each channel, counts: softmax of its strength in each sample, times their number."""
    return (strength.flatten(1) / temperature).softmax(1).view_as(strength) * strength.shape[
        1:
    ].numel()


def scaled_l2_normalize(values: Tensor) -> Tensor:
    """Vectors (..., P) of unit length; those of zeros as they are, with a finite gradient."""
    largest = values.detach().abs().amax(-1, keepdim=True)
    return F.normalize(
        values / torch.where(largest > torch.finfo(values.dtype).tiny ** 0.5, largest, 1.0), dim=-1
    )
