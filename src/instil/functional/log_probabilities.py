"""Logits of classifiers that return probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-6
"""Smallest probability: trees return exact zeros, whose logarithm is not finite."""


def log_of(probabilities: Tensor, floor: float = FLOOR) -> Tensor:
    """Return logits whose softmax is a distribution.

    Args:
        probabilities: (..., C), each row with the sum 1.
        floor: smallest probability.

    Returns:
        (..., C), float32.

    Example:
        >>> import torch
        >>> log_of(torch.tensor([1.0, 0.0]), floor=0.5)
        tensor([ 0.0000, -0.6931])
    """
    return torch.as_tensor(probabilities).float().clamp(min=floor).log()


def logit_of(probabilities: Tensor, floor: float = FLOOR) -> Tensor:
    """Return logits whose sigmoid are independent probabilities.

    Args:
        probabilities: (..., C), each in [0, 1].
        floor: smallest probability, and smallest one of the opposite.

    Returns:
        (..., C), float32.

    Example:
        >>> import torch
        >>> logit_of(torch.tensor([0.5, 0.75]))
        tensor([0.0000, 1.0986])
    """
    clamped = torch.as_tensor(probabilities).float().clamp(floor, 1 - floor)
    return clamped.log() - (1 - clamped).log()
