"""Noise schedule and deterministic denoising of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TIMES = 1000


def signal_variance(time: Tensor) -> Tensor:
    """How much of the variance is signal at a time in 0 ... 999, 1 before the first: the product of 1 - beta, beta linear from 1e-4 to 0.02."""
    kept = (1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64, device=time.device)).cumprod(
        0
    )
    return torch.where(time >= 0, kept[time.clamp_min(0)], 1.0)


def add_noise(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The forward process at each sample's time (N,): sqrt(signal) clean + sqrt(1 - signal) noise (Huang et al. 2023, eq. 2)."""
    kept = signal_variance(time).to(clean.dtype).view(-1, *[1] * (clean.ndim - 1))
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def denoise(noisy: Tensor, predict: Callable[[Tensor, Tensor], Tensor], steps: int = 5) -> Tensor:
    """``steps`` deterministic DDIM steps from half of the way: ``predict(values, time)`` is the noise in values (N, ...) at a time (1,)."""
    stride = TIMES // (2 * steps)
    for number in range(steps - 1, -1, -1):
        time = torch.tensor([number * stride], device=noisy.device)
        kept, before = (signal_variance(at).to(noisy.dtype) for at in (time, time - stride))
        noise = predict(noisy, time)
        clean = (noisy - (1 - kept).sqrt() * noise) / kept.sqrt()
        noisy = before.sqrt() * clean + (1 - before).sqrt() * noise
    return noisy
