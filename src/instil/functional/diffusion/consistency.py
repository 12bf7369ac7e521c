"""Consistency models: distance of two predictions, and the time of the target."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.functional.errors import sample_mean

Distance = Literal["l1", "l2", "huber", "entry_huber"]
"""Distance of two clean images.

``huber`` is the pseudo-Huber distance of whole images, ``entry_huber`` its mean over entries.
"""


def consistency_loss(
    student_denoised: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    distance: Distance = "huber",
    huber_width: float | None = None,
) -> Tensor:
    """Distance of the student's clean images from those of a target at an earlier time.

    Song et al. 2023, Eq. 7. The target must have no gradient.

    Args:
        student_denoised: clean images that the student predicts (N, ...).
        target: clean images that the target predicts, of the same shape.
        weight: weight of each image (N,); None for 1.
        distance: ``"huber"`` is ``sqrt(|d| ** 2 + c ** 2) - c`` of the whole image. ``"l1"``,
            ``"l2"`` and ``"entry_huber"`` are means over the entries of an image.
        huber_width: ``c`` of the pseudo-Huber distances; None: ``0.00054 * sqrt(entries)``
            (Song & Dhariwal 2024, section 3.3).

    Returns:
        (N,).

    Example:
        >>> consistency_loss(torch.ones(1, 4), torch.zeros(1, 4), distance="l2")
        tensor([1.])
        >>> consistency_loss(torch.ones(1, 4), torch.zeros(1, 4), huber_width=1.5)
        tensor([1.])
    """
    difference = student_denoised - target
    squared = difference.square()
    if huber_width is None:
        huber_width = 0.00054 * math.sqrt(difference.shape[1:].numel())
    if distance == "l1":
        value = sample_mean(difference.abs())
    elif distance == "l2":
        value = sample_mean(squared)
    elif distance == "huber":
        value = pseudo_huber(squared.flatten(1).sum(1), huber_width)
    else:
        value = sample_mean(pseudo_huber(squared, huber_width))
    return value if weight is None else weight * value


def pseudo_huber(squared: Tensor, width: float) -> Tensor:
    """Pseudo-Huber distance ``sqrt(squared + width ** 2) - width`` of squared distances.

    Args:
        squared: squared distances, in any shape.
        width: distance at which the value turns from quadratic to linear; 0: the plain distance.

    Returns:
        Distances in the same shape.

    Example:
        >>> pseudo_huber(torch.tensor([16.0]), 3.0)
        tensor([2.])
    """
    # The gradient of a root at 0 is infinite.
    tiny = torch.finfo(squared.dtype).tiny
    return (squared + max(width**2, tiny)).sqrt() - width


def earlier_ratio(
    ratio: Tensor, progress: float, doublings: int = 8, steepness: float = 8.0, shift: float = 1.0
) -> Tensor:
    """Noise level of the target, which approaches that of the prediction during training.

    Easy consistency tuning (Geng et al. 2025, section 3.2):
    ``r = t * (1 - n(t) / 2 ** stage)`` with ``n(t) = 1 + k * sigmoid(-b * t)``. In the first of
    ``doublings`` stages the target is nearly clean, so that the loss is that of diffusion.

    Args:
        ratio: noise level ``t = sigma / alpha`` of each image (N,).
        progress: share of the training that has passed, in [0, 1].
        doublings: number of stages; the relative gap halves in each.
        steepness: ``k``, the additional gap at low noise.
        shift: ``b``, the decrease of the additional gap with the noise.

    Returns:
        (N,), from 0 to ``ratio``.

    Example:
        >>> earlier_ratio(torch.tensor([1.0]), 0.0), earlier_ratio(torch.tensor([1.0]), 1.0)
        (tensor([0.]), tensor([0.9877]))
    """
    stage = 1 + min(int(progress * doublings), doublings - 1)
    gap = (1 + steepness * torch.sigmoid(-shift * ratio)) / 2**stage
    return ratio * (1 - gap).clamp_min(0)
