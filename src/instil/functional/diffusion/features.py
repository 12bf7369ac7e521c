"""Noise schedule and deterministic denoising of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TIMES = 1000


def signal_variance(time: Tensor) -> Tensor:
    """Share of the variance that is signal at times 0 ... 999; 1 at negative times.

    The product of ``1 - beta``, with beta linear from 1e-4 to 0.02.
    """
    beta = torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64, device=time.device)
    shares = (1 - beta).cumprod(0)
    return torch.where(time >= 0, shares[time.clamp_min(0)], 1.0)


def add_noise(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Forward diffusion process (Huang et al. 2023, Eq. 2).

    Args:
        clean: (N, ...).
        noise: standard normal noise of the same shape.
        time: time of each sample (N,), in 0 ... 999.

    Returns:
        ``sqrt(share) * clean + sqrt(1 - share) * noise``.
    """
    share = signal_variance(time).to(clean.dtype).view(-1, *[1] * (clean.ndim - 1))
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def denoise(noisy: Tensor, predict: Callable[[Tensor, Tensor], Tensor], steps: int = 5) -> Tensor:
    """Denoise with deterministic DDIM steps, from half of the schedule to its start.

    Args:
        noisy: (N, ...).
        predict: ``(values (N, ...), time (1,)) -> noise`` in the values.
        steps: number of steps.

    Returns:
        (N, ...).
    """
    stride = TIMES // (2 * steps)
    for step in range(steps - 1, -1, -1):
        time = torch.tensor([step * stride], device=noisy.device)
        share = signal_variance(time).to(noisy.dtype)
        next_share = signal_variance(time - stride).to(noisy.dtype)
        noise = predict(noisy, time)
        clean = (noisy - (1 - share).sqrt() * noise) / share.sqrt()
        noisy = next_share.sqrt() * clean + (1 - next_share).sqrt() * noise
    return noisy
