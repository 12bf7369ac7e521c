"""Noisy images of a training batch, and the range of the images of a denoiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NoisySample:
    """Noisy images of a training batch.

    Args:
        clean: clean images (N, C, H, W) in [-1, 1].
        noise: standard normal noise of the same shape.
        time: times (N,) of the schedule of the denoiser that drew them.
        noisy: ``alpha * clean + sigma * noise``.
        label: classes (N,), -100 for none; None for a model without classes.
    """

    clean: Tensor
    noise: Tensor
    time: Tensor
    noisy: Tensor
    label: Tensor | None


def to_model_range(image: Tensor) -> Tensor:
    """Images in [0, 1] as images in [-1, 1], which denoisers read."""
    return 2 * image - 1


def to_image_range(clean: Tensor) -> Tensor:
    """Images of a denoiser as images in [0, 1], clamped."""
    return ((clean + 1) / 2).clamp(0, 1)
