"""Sampler that repeats half of the previous batch in each batch (Shen et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def last_batch(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return batches of the new half of the previous batch and a half of new samples.

    The repeated samples are in another version. All samples occur twice in an epoch, except those
    of the first and the last half.

    Args:
        data: samples to draw from.
        batch_size: samples per batch.
        generator: source of all random draws.

    Returns:
        Rows and versions, both (batches, samples per batch).

    Raises:
        ValueError: for fewer samples than two halves, and for a batch of one sample.
    """
    size = half(batch_size, "last_batch")
    if len(data) < 2 * size:
        raise ValueError(
            f"sampler last_batch needs a whole batch. Expected at least {2 * size} {data.noun}s, "
            f"got {len(data)}"
        )
    halves, version = shuffled(data, size, generator)
    rows = torch.cat([halves[:-1], halves[1:]], 1)
    return rows, torch.cat([torch.ones_like(version[:-1]), version[1:]], 1)
