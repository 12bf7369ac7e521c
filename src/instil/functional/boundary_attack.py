"""Attack that moves images to the decision boundary of a classifier (Heo et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 1e-4
"""Added to the difference of the logits, so that a step ends just behind the boundary."""


def boundary_step(
    image: Tensor, logits: Tensor, base: Tensor, target: Tensor, gradient: Tensor, step_size: float
) -> Tensor:
    """One step of the attack.

    x - eta (f_b - f_k + 1e-4) g / ||g||, with g the gradient of f_b - f_k: the nearer the boundary,
    the shorter the step. An image whose most likely class is not its base class does not move.

    Args:
        image: (N, ...).
        logits: teacher logits of the images (N, C).
        base: base classes b (N,).
        target: target classes k (N,).
        gradient: g, in the shape of the images.
        step_size: eta.

    Returns:
        The moved images, in the shape of ``image``.
    """
    difference = logits.gather(1, base[:, None]) - logits.gather(1, target[:, None])
    moves = logits.argmax(1) == base
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    length = (difference.squeeze(1) + MARGIN) * moves
    length = length / norm.clamp_min(torch.finfo(gradient.dtype).tiny)
    length = length.to(image.dtype).view(-1, *[1] * (image.ndim - 1))
    moved: Tensor = image - step_size * length * gradient
    return moved


def other_class(logits: Tensor, base: Tensor, draws: Tensor) -> Tensor:
    """Sample a class other than the base class by its softmax among the other classes.

    Args:
        logits: (N, C).
        base: base classes (N,).
        draws: uniform numbers (N, 1) in [0, 1).

    Returns:
        Classes (N,).
    """
    cdf = logits.scatter(1, base[:, None], -torch.inf).softmax(1).cumsum(1)
    return (cdf <= draws * cdf[:, -1:]).sum(1)
