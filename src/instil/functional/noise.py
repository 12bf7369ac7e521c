"""Gaussian noise that depends on seed, step and sample only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


def box_muller(batch: Batch, shape: tuple[int, ...], stream: str) -> Tensor:
    """Standard normal numbers of each sample, by the Box-Muller transform.

    Args:
        batch: batch of the step.
        shape: shape of the numbers of one sample.
        stream: stream of the random numbers.

    Returns:
        (N, *shape); absolute values are at most 5.8.
    """
    size = math.prod(shape)
    radius, angle = keyed_uniform(batch, 2 * ((size + 1) // 2), stream).chunk(2, 1)
    length = (-2 * (1 - radius).log()).sqrt()
    angle = 2 * math.pi * angle
    values = torch.cat([length * angle.cos(), length * angle.sin()], 1)
    return values[:, :size].reshape(-1, *shape)
