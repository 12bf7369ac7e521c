"""Probability that one of several sampled answers is correct."""

from __future__ import annotations

import torch
from torch import Tensor


def pass_at_k(num_correct: Tensor, num_samples: int, k: int) -> Tensor:
    """Unbiased estimate of the probability that one of ``k`` samples is correct (pass@k).

    ``1 - C(n - c, k) / C(n, k)`` for ``c`` correct ones of ``n`` samples (Chen et al. 2021, Eq. 1).
    The plug-in estimate ``1 - (1 - c / n) ** k`` is biased.

    Args:
        num_correct: number of correct samples of each problem (N,).
        num_samples: number of samples of each problem.
        k: number of samples, at least one correct, at most ``num_samples``.

    Returns:
        Estimates (N,), float64.

    Raises:
        ValueError: if ``k`` is below 1 or above ``num_samples``.

    Example:
        >>> import torch
        >>> pass_at_k(torch.tensor([0, 1, 4]), num_samples=4, k=2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k: Expected 1 to {num_samples} (num_samples), got {k}")
    num_wrong = (num_samples - num_correct).double()
    # The product form does not overflow, as the binomial coefficients would.
    steps = torch.arange(k, device=num_correct.device, dtype=torch.float64)
    factors = (num_wrong[:, None] - steps).clamp_min(0) / (num_samples - steps)
    return 1 - factors.prod(-1)
