"""Half of every batch is the new half of the batch before, in another version (Shen et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def last_batch(data: Samples, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of the shuffled data's halves the first and second, the second and third ...: all but the outermost come twice.

    Raises ValueError for fewer samples than two halves.
    """
    size = half(batch_size, "last_batch")
    if len(data) < 2 * size:
        raise ValueError(
            f"sampler last_batch needs a whole batch of {2 * size}, and there are {len(data)} {data.noun}s"
        )
    halves, first = shuffled(data, size, generator)
    return torch.cat([halves[:-1], halves[1:]], 1), torch.cat(
        [torch.ones_like(first[:-1]), first[1:]], 1
    )
