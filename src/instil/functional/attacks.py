"""Adversarial attacks on images in [0, 1]: FGSM and PGD."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AttackLoss = Callable[[Tensor], Tensor]
"""Loss that an attack raises: maps images (N, ...) to values (N,), each of its own image only."""


def pgd(
    attack_loss: AttackLoss,
    image: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent by the sign of the gradient (Madry et al. 2018).

    Args:
        attack_loss: loss that the attack raises.
        image: (N, ...) in [0, 1].
        epsilon: largest change of a pixel.
        step_size: change of a pixel in one step.
        steps: number of steps.
        start: numbers in [0, 1) in the shape of ``image``: start of the attack in the box around
            the image. None: the image itself.

    Returns:
        Attacked images in [0, 1], without a graph.

    Example:
        >>> image = torch.full((1, 2), 0.5)
        >>> pgd(lambda x: (x * torch.tensor([1.0, -1.0])).sum(1), image, 0.25, 0.25, 2)
        tensor([[0.7500, 0.2500]])
    """
    low = (image - epsilon).clamp(0, 1)
    high = (image + epsilon).clamp(0, 1)
    attacked = image
    if start is not None:
        attacked = (image + epsilon * (2 * start - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = (attacked + step_size * sign_gradient(attack_loss, attacked)).clamp(low, high)
    return attacked.detach()


def fgsm(attack_loss: AttackLoss, image: Tensor, epsilon: float) -> Tensor:
    """Fast gradient sign method: one step of size ``epsilon`` (Goodfellow et al. 2015).

    Args:
        attack_loss: loss that the attack raises.
        image: (N, ...) in [0, 1].
        epsilon: change of a pixel.

    Returns:
        Attacked images in [0, 1], without a graph.

    Example:
        >>> fgsm(lambda x: x.sum(1), torch.tensor([[0.5, 0.9]]), 0.25)
        tensor([[0.7500, 1.0000]])
    """
    return pgd(attack_loss, image, epsilon, epsilon, 1)


def sign_gradient(attack_loss: AttackLoss, image: Tensor) -> Tensor:
    """Sign of the gradient of a loss by each pixel.

    No parameter gets a gradient. Works where gradients are disabled.

    Args:
        attack_loss: maps images to one value each.
        image: (N, ...).

    Returns:
        -1, 0 or 1, in the shape of ``image``.
    """
    with torch.enable_grad():
        leaf = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(attack_loss(leaf).sum(), leaf)
    return gradient.sign()
