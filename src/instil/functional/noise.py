"""Gaussian noise of each sample's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import Batch, keyed_uniform


def box_muller(batch: Batch, shape: tuple[int, ...], salt: int = 0) -> Tensor:
    """(N, *shape) standard normal numbers (Box-Muller) that depend on seed, step and sample alone, as ``keyed_uniform`` does; up to 5.8."""
    number = math.prod(shape)
    radius, angle = keyed_uniform(batch, 2 * ((number + 1) // 2), salt).chunk(2, 1)
    length = (-2 * (1 - radius).log()).sqrt()
    values = torch.cat(
        [length * (2 * math.pi * angle).cos(), length * (2 * math.pi * angle).sin()], 1
    )
    return values[:, :number].reshape(-1, *shape)
