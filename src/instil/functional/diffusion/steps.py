"""Single steps of diffusion samplers, and classifier-free guidance."""

from __future__ import annotations

from torch import Tensor

Coefficients = tuple[Tensor, Tensor]
"""``alpha`` and ``sigma`` at one time, as tensors that broadcast with the images."""


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
        >>> import torch
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


def guided(conditional: Tensor, unconditional: Tensor, guidance: Tensor | float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2021, Eq. 6).

    Args:
        conditional: prediction for the class (N, ...).
        unconditional: prediction without class (N, ...).
        guidance: weight ``w``, a number or (N,); 0: the conditional prediction.

    Returns:
        ``(1 + w) * conditional - w * unconditional``.

    Example:
        >>> import torch
        >>> guided(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 0.5)
        tensor([[2.5000]])
    """
    if isinstance(guidance, Tensor) and guidance.ndim:
        guidance = guidance.to(conditional.dtype).reshape(-1, *[1] * (conditional.ndim - 1))
    return conditional + guidance * (conditional - unconditional)
