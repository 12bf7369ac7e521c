"""Distribution matching distillation: gradient of a one-step generator from two denoisers."""

from __future__ import annotations

from torch import Tensor

from instil.functional.errors import sample_mean
from instil.functional.progressive import per_sample

SMALLEST = 1e-6
"""Lower bound of the mean distance that normalises the gradient."""


def distribution_matching_gradient(
    samples: Tensor, teacher_denoised: Tensor, fake_denoised: Tensor
) -> Tensor:
    """Direction that increases the divergence of the samples from the teacher's distribution.

    Difference of the denoised samples, divided by the mean distance of a sample from the teacher's
    (Yin et al. 2024, "One-step diffusion with distribution matching distillation", Eq. 7 and 8).

    Args:
        samples: generated samples (N, ...).
        teacher_denoised: samples with noise, denoised by the teacher.
        fake_denoised: samples with noise, denoised by the network of the generated distribution.

    Returns:
        (N, ...), without gradient.

    Example:
        >>> zero, one = torch.zeros(1, 4), torch.ones(1, 4)
        >>> distribution_matching_gradient(zero, one, zero)
        tensor([[-1., -1., -1., -1.]])
    """
    samples, real, fake = (x.detach() for x in (samples, teacher_denoised, fake_denoised))
    scale = sample_mean((samples - real).abs()).clamp_min(SMALLEST)
    return (fake - real) / per_sample(scale, samples)


def distribution_matching_loss(
    samples: Tensor,
    teacher_denoised: Tensor,
    fake_denoised: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Loss whose gradient by the samples is ``distribution_matching_gradient`` over their size.

    Args:
        samples: generated samples (N, ...).
        teacher_denoised: samples with noise, denoised by the teacher.
        fake_denoised: samples with noise, denoised by the network of the generated distribution.
        weight: weight of each sample's gradient (N,), such as that of f-distill; None for 1.

    Returns:
        (N,): half the mean squared gradient of each sample.

    Example:
        >>> zero, one = torch.zeros(1, 4), torch.ones(1, 4)
        >>> distribution_matching_loss(zero, one, zero)
        tensor([0.5000])
    """
    gradient = distribution_matching_gradient(samples, teacher_denoised, fake_denoised)
    if weight is not None:
        gradient = gradient * per_sample(weight.detach(), gradient)
    target = (samples - gradient).detach()
    return sample_mean((samples - target).square()) / 2


def edm_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """Weight ``1 / sigma ** 2 + 1 / sigma_data ** 2`` of errors of clean samples.

    Up to rounding the weight of Karras et al. 2022 (Table 1), for which the error of the
    network's own output has weight 1.

    Args:
        sigma: noise level of each sample (N,).
        sigma_data: standard deviation of the data.

    Returns:
        (N,).

    Example:
        >>> edm_weight(torch.tensor([1.0]))
        tensor([5.])
    """
    return 1 / sigma.square() + 1 / sigma_data**2
