"""Small changes of images that make a loss as large as they can: FGSM and PGD, in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AttackLoss = Callable[[Tensor], Tensor]
"""What an attack makes larger: of images (N, ...) one value each, (N,), of no other image."""


def pgd(
    threat: AttackLoss,
    image: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    """Images in [0, 1] that are nowhere further than ``epsilon`` from ``image``, after ``steps`` steps uphill by sign (Madry et al. 2018).

    ``start``: numbers in [0, 1) in the shape of ``image``, which say where in that box the first step begins; without them it is the image itself.
    """
    low, high = (image - epsilon).clamp(0, 1), (image + epsilon).clamp(0, 1)
    attacked = image if start is None else (image + epsilon * (2 * start - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = (attacked + step_size * sign_gradient(threat, attacked)).clamp(low, high)
    return attacked.detach()


def fgsm(threat: AttackLoss, image: Tensor, epsilon: float) -> Tensor:
    """One step of the whole ``epsilon`` from the image itself (Goodfellow et al. 2015)."""
    return pgd(threat, image, epsilon, epsilon, 1)


def sign_gradient(threat: AttackLoss, image: Tensor) -> Tensor:
    """The sign of the gradient of ``threat`` by each pixel; no parameter gets a gradient."""
    with torch.enable_grad():
        leaf = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(threat(leaf).sum(), leaf)
    return gradient.sign()
