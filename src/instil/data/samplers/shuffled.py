"""Sampler of all samples once, in random order."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samples import Samples


def shuffled(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return consecutive batches of the random order of the data.

    An incomplete last batch is left out, unless it is the only one.

    Args:
        data: samples, whose ``shuffled`` gives the order.
        batch_size: samples per batch.
        generator: source of all random draws.

    Returns:
        Rows and versions, both (batches, samples per batch); all versions are 0.
    """
    size = min(batch_size, len(data))
    order = data.shuffled(generator)
    rows = order[: len(order) // size * size].view(-1, size)
    return rows, torch.zeros_like(rows)
