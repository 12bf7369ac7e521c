"""Samples whose two parts belong together in some rows only."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from instil.data.samples import TensorData

SEED = 0
"""Seed of the samples that keep both parts, the same in every run."""


def unpair(samples: TensorData, num_pairs: int, keys: Sequence[str]) -> None:
    """Exchange one part of all but ``num_pairs`` random samples, and add ``is_pair`` (N,).

    Args:
        samples: training samples, which are changed.
        num_pairs: number of samples that keep both parts.
        keys: tensors of the part that is exchanged.

    Raises:
        ValueError: for more pairs than samples.
    """
    size = len(samples)
    if num_pairs > size:
        raise ValueError(
            f"num_pairs: too many. Expected at most {size} training samples, got {num_pairs}"
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(SEED))
    others = order[num_pairs:]
    source = torch.arange(size)
    source[others] = others.roll(1)
    for key in keys:
        samples.tensors[key] = samples.tensors[key][source]
    samples.tensors["is_pair"] = torch.ones(size, dtype=torch.bool)
    samples.tensors["is_pair"][others] = False
