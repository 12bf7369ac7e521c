"""Every sample once, in random order; the incomplete last batch is left out, unless it is the only one."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samples import Samples


def shuffled(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Consecutive runs of the data's own random order."""
    size = min(batch_size, len(data))
    order = data.shuffled(generator)
    rows = order[: len(order) // size * size].view(-1, size)
    return rows, torch.zeros_like(rows)
