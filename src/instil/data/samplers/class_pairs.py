"""Half a batch of shuffled samples, and to each another of its class (Yun et al. 2020, Algorithm 1); samples without a label are a class."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers import half
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


def class_pairs(
    data: Samples, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The second half of a batch is drawn evenly from the others of the class; a sample alone in its class meets another version of itself.

    Raises ValueError for data that have not one class a sample.
    """
    if data.label.ndim != 1 or data.label.is_floating_point():
        raise ValueError(
            f"sampler class_pairs needs one class a sample; labels have the shape {tuple(data.label.shape)}"
        )
    rows, first = shuffled(data, half(batch_size, "class_pairs"), generator)
    by_class = data.label.argsort(stable=True)
    place = torch.empty_like(by_class).scatter_(0, by_class, torch.arange(len(by_class)))
    _, group, counts = torch.unique(data.label, return_inverse=True, return_counts=True)
    start, count = (counts.cumsum(0) - counts)[group[rows]], counts[group[rows]]
    ahead = 1 + (torch.rand(rows.shape, generator=generator) * (count - 1)).long().minimum(
        (count - 2).clamp_min(0)
    )
    partner = by_class[start + (place[rows] - start + ahead) % count]
    return torch.cat([rows, partner], 1), torch.cat([first, torch.ones_like(first)], 1)
