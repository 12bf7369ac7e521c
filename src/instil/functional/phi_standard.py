"""Rotation that gives all channels the same variance (PHI-S)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.hadamard import equalizing_rotation

SMALLEST_DEVIATION = 1e-6
"""Smallest standard deviation by which channels are divided."""


def phi_s_rotation(covariance: Tensor) -> Tensor:
    """Matrix of the PHI-S standardization of features with a covariance.

    Args:
        covariance: (D, D), in float64 on the CPU.

    Returns:
        (D, D). Features times its transpose have variance 1 in every channel.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    deviation = values.mean().sqrt().clamp_min(SMALLEST_DEVIATION)
    rotation: Tensor = equalizing_rotation(values) @ vectors.T / deviation
    return rotation
