"""Every sample twice in its batch, in two versions (Xu & Liu 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def two_views(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The two versions of a sample are next to each other."""
    rows, first = shuffled(data, half(batch_size, "two_views"), generator)
    return torch.stack([rows, rows], 2).flatten(1), torch.stack(
        [first, torch.ones_like(first)], 2
    ).flatten(1)
