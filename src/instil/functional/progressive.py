"""Targets and weights of students that replace several diffusion steps by one."""

from __future__ import annotations

from torch import Tensor

from instil.functional.errors import squared_error


def per_sample(values: Tensor, samples: Tensor) -> Tensor:
    """View values of samples (N,) as (N, 1, ...), to broadcast with samples (N, ...)."""
    return values.view(-1, *[1] * (samples.ndim - 1))


def progressive_target(
    noisy: Tensor,
    later: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    later_alpha: Tensor,
    later_sigma: Tensor,
) -> Tensor:
    """Clean sample for which one DDIM step leads from ``noisy`` to ``later``.

    Salimans & Ho 2022, Algorithm 2. ``later`` is the result of two steps of the teacher.

    Args:
        noisy: noisy samples (N, ...).
        later: samples of the same shape after the steps of the teacher, with less noise.
        alpha: factor of the signal in ``noisy`` (N,).
        sigma: factor of the noise in ``noisy`` (N,).
        later_alpha: factor of the signal in ``later`` (N,).
        later_sigma: factor of the noise in ``later`` (N,).

    Returns:
        (N, ...).

    Example:
        >>> one = torch.ones(1)
        >>> noisy, later = torch.full((1, 1), 3.0), torch.full((1, 1), 2.0)
        >>> progressive_target(noisy, later, one, 2 * one, one, one)
        tensor([[1.]])
    """
    ratio = later_sigma / sigma
    difference = later - per_sample(ratio, noisy) * noisy
    return difference / per_sample(later_alpha - ratio * alpha, noisy)


def truncated_snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Weight ``max(alpha ** 2 / sigma ** 2, 1)`` of errors of clean samples.

    Salimans & Ho 2022, Eq. 9.

    Args:
        alpha: factor of the signal (N,).
        sigma: factor of the noise (N,).

    Returns:
        (N,).

    Example:
        >>> truncated_snr(torch.ones(2), torch.tensor([0.5, 2.0]))
        tensor([4., 1.])
    """
    return (alpha / sigma).square().clamp_min(1)


def weighted_squared_error(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean squared error of each sample, times its weight.

    Args:
        prediction: (N, ...).
        target: (N, ...).
        weight: (N,); None for 1.

    Returns:
        (N,).

    Example:
        >>> weighted_squared_error(torch.ones(1, 4), torch.zeros(1, 4), torch.tensor([3.0]))
        tensor([3.])
    """
    value = squared_error(prediction, target)
    return value if weight is None else weight * value
