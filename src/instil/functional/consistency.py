"""Consistency models: boundary condition, distance of predictions and schedule of the gap."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.functional.errors import sample_mean

ConsistencyDistance = Literal["l1", "l2", "huber", "entry_huber"]
"""Distance of two predictions.

``huber`` is the pseudo-Huber distance of whole samples, ``entry_huber`` its mean over entries.
"""


def boundary_scalings(
    time: Tensor, sigma_data: float = 0.5, smallest_time: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Factors of the input and of the network that give the identity at the smallest time.

    Song et al. 2023, section 3: ``f = c_skip * noisy + c_out * network``.

    Args:
        time: noise level of each sample (N,), ``sigma`` of a variance-exploding process.
        sigma_data: standard deviation of the data.
        smallest_time: time at which ``c_skip = 1`` and ``c_out = 0``.

    Returns:
        ``c_skip`` and ``c_out``, each (N,).

    Example:
        >>> boundary_scalings(torch.tensor([0.0, 0.5]))
        (tensor([1.0000, 0.5000]), tensor([0.0000, 0.3536]))
    """
    elapsed = time - smallest_time
    variance = sigma_data**2
    c_skip = variance / (elapsed.square() + variance)
    c_out = elapsed * sigma_data / (time.square() + variance).sqrt()
    return c_skip, c_out


def consistency_loss(
    student: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    distance: ConsistencyDistance = "huber",
    huber_width: float | None = None,
) -> Tensor:
    """Distance of the student's prediction at one time from the target at an earlier time.

    Song et al. 2023, Eq. 7. The target must have no gradient.

    Args:
        student: predicted clean samples (N, ...).
        target: predicted clean samples at the earlier time, of the same shape.
        weight: weight of each sample (N,); None for 1.
        distance: ``"huber"`` is ``sqrt(|d| ** 2 + c ** 2) - c`` of the whole sample. ``"l1"``,
            ``"l2"`` and ``"entry_huber"`` are means over the entries of a sample.
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
    difference = student - target
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
        width: distance at which the value turns from quadratic to linear.

    Returns:
        Distances in the same shape.

    Example:
        >>> pseudo_huber(torch.tensor([16.0]), 3.0)
        tensor([2.])
    """
    return (squared + width**2).sqrt() - width


def earlier_time(
    time: Tensor, progress: float, doublings: int = 8, steepness: float = 8.0, shift: float = 1.0
) -> Tensor:
    """Time of the target, which approaches the time of the prediction in training.

    Easy consistency tuning (Geng et al. 2025, section 3.2):
    ``r = t * (1 - n(t) / 2 ** stage)`` with ``n(t) = 1 + k * sigmoid(-b * t)``. In the first of
    ``doublings`` stages the target is near time 0, so that the loss is that of diffusion.

    Args:
        time: noise level of each sample (N,), ``sigma`` of a variance-exploding process.
        progress: share of the training that has passed, in [0, 1].
        doublings: number of stages; the relative gap of times halves in each.
        steepness: ``k``, the additional gap at small times.
        shift: ``b``, the decrease of the additional gap with the time.

    Returns:
        (N,), in [0, time).

    Example:
        >>> earlier_time(torch.tensor([1.0]), 0.0), earlier_time(torch.tensor([1.0]), 1.0)
        (tensor([0.]), tensor([0.9877]))
    """
    stage = 1 + min(int(progress * doublings), doublings - 1)
    ratio = (1 + steepness * torch.sigmoid(-shift * time)) / 2**stage
    return time * (1 - ratio).clamp_min(0)
