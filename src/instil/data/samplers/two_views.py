"""Sampler of every sample in two versions within one batch (Xu & Liu 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def two_views(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return batches in which the two versions of a sample are adjacent.

    Args:
        data: samples to draw from.
        batch_size: samples per batch, counting both versions.
        generator: source of all random draws.

    Returns:
        Rows and versions, both (batches, samples per batch).
    """
    rows, version = shuffled(data, half(batch_size, "two_views"), generator)
    versions = torch.stack([version, torch.ones_like(version)], 2).flatten(1)
    return torch.stack([rows, rows], 2).flatten(1), versions
