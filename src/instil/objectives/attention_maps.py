"""Where a feature map is strong: which positions, and which channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import full


def attention_map(stage: Tensor, power: float = 2.0) -> Tensor:
    """Where a map (N, C, H, W) is strong: the channels' mean of abs(x) ** power, flat and of unit length, (N, H * W)."""
    stage = full(stage)
    largest = stage.detach().abs().amax((1, 2, 3), keepdim=True)
    strength = (stage / largest.clamp_min(torch.finfo(stage.dtype).tiny)).abs()  # unit length forgets the scale, powers overflow
    return F.normalize(strength.pow(power).mean(1).flatten(1), dim=1)


def position_weights(stage: Tensor, temperature: float) -> Tensor:
    """How much each position of a map (N, C, H, W) counts: softmax of its mean strength over the channels, with mean 1, (N, 1, H, W)."""
    strength = full(stage).abs().mean(1, keepdim=True)
    return (strength.flatten(2) / temperature).softmax(2).view_as(strength) * strength[0].numel()


def channel_weights(stage: Tensor, temperature: float) -> Tensor:
    """How much each channel of a map (N, C, H, W) counts: softmax of its mean strength over the positions, with mean 1, (N, C, 1, 1)."""
    strength = full(stage).abs().mean((2, 3), keepdim=True)
    return (strength / temperature).softmax(1) * stage.shape[1]
