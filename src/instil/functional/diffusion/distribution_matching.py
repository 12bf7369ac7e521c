"""Distribution matching distillation: gradient of a generator from two denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from instil.functional.choices import require_choice
from instil.functional.errors import sample_mean

SMALLEST = 1e-6
"""Lower bound of the mean distance that normalises the gradient."""

FDivergence = Literal[
    "reverse_kl", "forward_kl", "jensen_shannon", "softened_reverse_kl", "hellinger", "jeffreys"
]
"""Names of the divergences of f-distill."""

RATIO_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": torch.ones_like,
    "forward_kl": lambda ratio: ratio,
    "jensen_shannon": lambda ratio: ratio / (1 + ratio),
    "softened_reverse_kl": lambda ratio: 1 / (1 + ratio),
    "hellinger": lambda ratio: ratio.sqrt(),
    "jeffreys": lambda ratio: 1 + ratio,
}


def distribution_matching_gradient(
    samples: Tensor, teacher_denoised: Tensor, fake_denoised: Tensor
) -> Tensor:
    """Direction that increases the divergence of generated images from the teacher's distribution.

    Difference of the denoised images, divided by the mean distance of an image from the teacher's
    (Yin et al. 2024, "One-step diffusion with distribution matching distillation", Eq. 7 and 8).

    Args:
        samples: generated images (N, ...).
        teacher_denoised: the images with noise, denoised by the teacher.
        fake_denoised: the images with noise, denoised by the model of the generated distribution.

    Returns:
        (N, ...), without gradient.

    Example:
        >>> zero, one = torch.zeros(1, 4), torch.ones(1, 4)
        >>> distribution_matching_gradient(zero, one, zero)
        tensor([[-1., -1., -1., -1.]])
    """
    samples = samples.detach()
    teacher_denoised = teacher_denoised.detach()
    scale = sample_mean((samples - teacher_denoised).abs()).clamp_min(SMALLEST)
    shape = (-1, *[1] * (samples.ndim - 1))
    return (fake_denoised.detach() - teacher_denoised) / scale.view(shape)


def distribution_matching_loss(
    samples: Tensor,
    teacher_denoised: Tensor,
    fake_denoised: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Loss whose gradient by the images is ``distribution_matching_gradient`` over their size.

    Args:
        samples: generated images (N, ...).
        teacher_denoised: the images with noise, denoised by the teacher.
        fake_denoised: the images with noise, denoised by the model of the generated distribution.
        weight: factor of each image's gradient (N,), such as ``ratio_weight``; None for 1.

    Returns:
        (N,): half the mean squared gradient of each image, times its weight.

    Example:
        >>> zero, one = torch.zeros(1, 4), torch.ones(1, 4)
        >>> distribution_matching_loss(zero, one, zero)
        tensor([0.5000])
    """
    gradient = distribution_matching_gradient(samples, teacher_denoised, fake_denoised)
    target = samples.detach() - gradient
    value = sample_mean((samples - target).square()) / 2
    return value if weight is None else weight.detach() * value


def ratio_weight(log_ratio: Tensor, divergence: FDivergence) -> Tensor:
    """Weight of the gradient of distribution matching for another divergence.

    f-distill (Xu et al. 2025, table 1): ``h(r) = f''(r) * r ** 2`` of the density ratio ``r`` of
    data to generated images. Ratios are limited to [0.1, 10].

    Args:
        log_ratio: score of a critic, the logarithm of the density ratio.
        divergence: name of the divergence.

    Returns:
        Weights in the shape of the scores, without gradient.

    Raises:
        ValueError: for an unknown divergence.

    Example:
        >>> ratio_weight(torch.tensor([0.0]), "jensen_shannon")
        tensor([0.5000])
    """
    require_choice("divergence", divergence, get_args(FDivergence))
    ratio = log_ratio.detach().exp().clamp(0.1, 10)
    return RATIO_WEIGHTS[divergence](ratio)
