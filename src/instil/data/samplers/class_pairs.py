"""Sampler of pairs with the same class (Yun et al. 2020, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def class_pairs(
    data: Samples, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return batches whose second half has one partner of the same class for each sample.

    Partners are drawn uniformly from the other samples of the class. A sample that is alone in its
    class is paired with another version of itself. Unlabelled samples form a class.

    Args:
        data: samples with one class each.
        batch_size: samples per batch; the first half are shuffled samples.
        generator: source of all random draws.

    Returns:
        Rows and versions, both (batches, samples per batch).

    Raises:
        ValueError: for other labels, and for a batch of one sample.
    """
    if data.label.ndim != 1 or data.label.is_floating_point():
        raise ValueError(
            f"sampler class_pairs needs one class per sample. Expected labels of shape (N,), got "
            f"{tuple(data.label.shape)}"
        )
    rows, version = shuffled(data, half(batch_size, "class_pairs"), generator)
    by_class = data.label.argsort(stable=True)
    position = torch.empty_like(by_class).scatter_(0, by_class, torch.arange(len(by_class)))
    _, group, counts = torch.unique(data.label, return_inverse=True, return_counts=True)
    start = (counts.cumsum(0) - counts)[group[rows]]
    count = counts[group[rows]]
    # A step of 1 to count - 1 within the class never returns to the sample itself.
    draws = torch.rand(rows.shape, generator=generator)
    step = 1 + (draws * (count - 1)).long().minimum((count - 2).clamp_min(0))
    partner = by_class[start + (position[rows] - start + step) % count]
    versions = torch.cat([version, torch.ones_like(version)], 1)
    return torch.cat([rows, partner], 1), versions
