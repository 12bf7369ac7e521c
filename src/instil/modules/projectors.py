"""Projection heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32


class UnitProjector(nn.Module):
    """Two linear layers with a ReLU between them, and normalisation to unit length.

    Maps (N, inputs) to (N, width).

    Args:
        inputs: width of the input.
        width: width of the hidden layer and of the output.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(to_float32(self.layers(features)), dim=1)
