"""A small diffusion model of feature maps: the noise schedule, deterministic denoising, and the net that predicts the noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.objectives.connectors import Norm, convolutions

TIMES = 1000
LEAST_WIDTH = 4


def signal(time: Tensor) -> Tensor:
    """How much of the variance is signal at a time in 0 ... 999, 1 before the first: the product of 1 - beta, beta linear from 1e-4 to 0.02."""
    kept = (1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64, device=time.device)).cumprod(
        0
    )
    return torch.where(time >= 0, kept[time.clamp_min(0)], 1.0)


def noised(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The forward process at each sample's time (N,): sqrt(signal) clean + sqrt(1 - signal) noise (Huang et al. 2023, eq. 2)."""
    kept = signal(time).to(clean.dtype).view(-1, *[1] * (clean.ndim - 1))
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def denoised(noisy: Tensor, predict: Callable[[Tensor, Tensor], Tensor], steps: int = 5) -> Tensor:
    """``steps`` deterministic DDIM steps from half of the way: ``predict(values, time)`` is the noise in values (N, ...) at a time (1,)."""
    stride = TIMES // (2 * steps)
    for number in range(steps - 1, -1, -1):
        time = torch.tensor([number * stride], device=noisy.device)
        kept, before = (signal(at).to(noisy.dtype) for at in (time, time - stride))
        noise = predict(noisy, time)
        clean = (noisy - (1 - kept).sqrt() * noise) / kept.sqrt()
        noisy = before.sqrt() * clean + (1 - before).sqrt() * noise
    return noisy


class Bottleneck(nn.Module):
    """Three convolutions through a narrow middle, added to what goes in."""

    def __init__(self, channels: int, reduction: int, norm: Norm):
        super().__init__()
        middle = max(LEAST_WIDTH, channels // reduction)
        self.block = convolutions((channels, middle, middle, channels), (1, 3, 1), norm, "norm")

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = values + self.block(values)
        return result


class NoiseModel(nn.Module):
    """Predicts the noise in maps (N, C, H, W), or with ``pointwise`` in logits (N, C, 1, 1), at a time (N,) or (1,)."""

    def __init__(self, channels: int, pointwise: bool, norm: Norm):
        super().__init__()
        self.time = nn.Embedding(TIMES, channels)
        wide = convolutions((channels, 4 * channels, channels), (1, 1), norm, "norm")
        bottlenecks = nn.Sequential(Bottleneck(channels, 4, norm), Bottleneck(channels, 4, norm))
        self.body = wide if pointwise else bottlenecks
        last = (channels, 4 * channels, channels) if pointwise else (channels, channels)
        self.last = convolutions(
            last, (1,) * (len(last) - 1), norm, "plain" if pointwise else "norm"
        )

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        result: Tensor = self.last(self.body(values + self.time(time)[:, :, None, None]))
        return result
