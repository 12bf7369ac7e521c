"""Single steps of diffusion samplers, and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.functional.diffusion.noise_schedule import NoiseSchedule

Coefficients = tuple[Tensor, Tensor]
"""``alpha`` and ``sigma`` at one time, as tensors that broadcast with the images."""
Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(noisy images (N, ...), times (N,)) -> clean images (N, ...)``."""


def over_pixels(values: Tensor, images: Tensor) -> Tensor:
    """View values of images (N,) as (N, 1, ...), to broadcast with images (N, ...)."""
    return values.view(-1, *[1] * (images.ndim - 1))


def noise_of(noisy: Tensor, denoised: Tensor, now: Coefficients) -> Tensor:
    """Noise in noisy images with a predicted clean image.

    Args:
        noisy: noisy images (N, ...).
        denoised: clean images (N, ...).
        now: coefficients of the current time; ``sigma`` is not 0.
    """
    alpha, sigma = now
    return (noisy - alpha * denoised) / sigma


def ddim_step(noisy: Tensor, denoised: Tensor, now: Coefficients, after: Coefficients) -> Tensor:
    """Deterministic DDIM step (Song et al. 2021, Eq. 12 without noise).

    With ``alpha = 1`` it is the Euler step of EDM, and with ``alpha = 1 - sigma`` the Euler step
    of rectified flow.

    Args:
        noisy: images (N, ...) at the current time.
        denoised: clean images that a model predicts from them.
        now: coefficients of the current time.
        after: coefficients of the next time.

    Returns:
        Images at the next time.

    Example:
        >>> now, after = torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6])
        >>> ddim_step(torch.tensor(1.0), torch.tensor(0.5), tuple(now), tuple(after))
        tensor(0.9250)
    """
    return after[0] * denoised + after[1] * noise_of(noisy, denoised, now)


def ddim_clean(
    noisy: Tensor, after_noisy: Tensor, now: Coefficients, after: Coefficients
) -> Tensor:
    """Clean image with which one DDIM step leads from ``noisy`` to ``after_noisy``.

    It is the target of progressive distillation (Salimans and Ho 2022, algorithm 2).

    Args:
        noisy: images (N, ...) at the current time.
        after_noisy: images at a later step, of less noise.
        now: coefficients of the current time.
        after: coefficients of the later step.

    Returns:
        (N, ...).
    """
    ratio = after[1] / now[1]
    return (after_noisy - ratio * noisy) / (after[0] - ratio * now[0])


def solver_step(
    denoise: Denoise,
    schedule: NoiseSchedule,
    noisy: Tensor,
    time: Tensor,
    end_time: Tensor,
    solver: str = "ddim",
) -> Tensor:
    """Noisy images after one step of a sampler, with times of their own.

    Args:
        denoise: denoising function.
        schedule: noise schedule.
        noisy: noisy images (N, ...).
        time: times (N,) > 0.
        end_time: smaller times (N,).
        solver: ``ddim``, or ``heun`` of second order with two calls of ``denoise``.

    Returns:
        (N, ...) at ``end_time``.
    """
    denoised = denoise(noisy, time)
    now, after = (schedule.coefficients(value, noisy) for value in (time, end_time))
    reached = ddim_step(noisy, denoised, now, after)
    if solver == "ddim":
        return reached
    length = over_pixels(end_time - time, noisy)
    velocity = schedule.velocity(noisy, denoised, time)
    euler = noisy + length * velocity
    # The velocity has no value at time 0, where a first-order step ends.
    safe_end = end_time.clamp_min(schedule.min_time)
    corrected = schedule.velocity(euler, denoise(euler, safe_end), safe_end)
    heun = noisy + length * (velocity + corrected) / 2
    return torch.where(over_pixels(end_time, noisy) > 0, heun, reached)


def guided(conditional: Tensor, unconditional: Tensor, guidance: Tensor | float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2021, Eq. 6).

    Args:
        conditional: prediction for the class (N, ...).
        unconditional: prediction without class (N, ...).
        guidance: weight ``w``, a number or (N,); 0: the conditional prediction.

    Returns:
        ``(1 + w) * conditional - w * unconditional``.

    Example:
        >>> guided(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 0.5)
        tensor([[2.5000]])
    """
    if isinstance(guidance, Tensor) and guidance.ndim:
        guidance = guidance.to(conditional.dtype).reshape(-1, *[1] * (conditional.ndim - 1))
    return conditional + guidance * (conditional - unconditional)
