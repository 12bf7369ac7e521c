"""Hard-concrete gates on the output channels of layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STRETCH = (-0.1, 1.1)
"""Interval to which a concrete variable is stretched before it is cut to [0, 1]."""
SHARPNESS = 2 / 3
"""Temperature of the concrete variable."""


class HardConcreteGates(nn.Module):
    """One gate in [0, 1] for each output channel of a layer (Louizos et al. 2018, Eq. 10 to 13).

    Args:
        layer: linear layer or convolution; its device and its number of outputs are used.
        initial: initial probability that a gate is open.

    Attributes:
        cost: number of weights of one channel.
    """

    def __init__(self, layer: nn.Module, initial: float = 0.95):
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.cost = weight[0].numel() + (getattr(layer, "bias", None) is not None)
        start = math.log(initial / (1 - initial)) + self.shift
        self.location = nn.Parameter(
            torch.full((len(weight),), start, device=weight.device, dtype=torch.float32)
        )

    @property
    def shift(self) -> float:
        """Location at which a gate is open with probability 1/2."""
        low, high = STRETCH
        return SHARPNESS * math.log(-low / high)

    def open_probability(self) -> Tensor:
        """Probability (C,) that each gate is not 0."""
        return (self.location - self.shift).sigmoid()

    def sample(self, uniform: Tensor) -> Tensor:
        """Gates (C,) for uniform numbers (C,) in [0, 1)."""
        uniform = uniform.clamp(1e-6, 1 - 1e-6)
        noise = uniform.log() - (1 - uniform).log()
        return _stretched(((noise + self.location) / SHARPNESS).sigmoid())

    def fixed(self) -> Tensor:
        """Gates (C,) without noise, for evaluation and export.

        As many gates as are closed on average are 0, those with the lowest location.
        """
        values = _stretched(self.location.sigmoid())
        rank = self.location.argsort(stable=True).argsort()
        num_closed = (1 - self.open_probability()).sum().round()
        return torch.where(rank < num_closed, 0.0, values)


def _stretched(value: Tensor) -> Tensor:
    low, high = STRETCH
    return (value * (high - low) + low).clamp(0, 1)
