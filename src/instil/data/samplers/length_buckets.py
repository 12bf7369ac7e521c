"""Sampler of batches with rows of similar length."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples

POOL = 50
"""Number of batches among which rows are sorted by length."""


def length_buckets(
    data: Samples, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return batches of rows of similar length, which need little padding.

    An epoch has the same rows as with the sampler ``shuffled``. The rows of 50 consecutive batches
    are sorted by length and divided into batches, whose order is random.

    Args:
        data: samples with ``lengths``, such as those of the source ``chat``.
        batch_size: samples per batch.
        generator: source of all random draws.

    Returns:
        Rows and versions, both (batches, samples per batch); all versions are 0.

    Raises:
        ValueError: for samples of one length.
    """
    lengths: Tensor | None = getattr(data, "lengths", None)
    if lengths is None:
        raise ValueError(
            f"sampler length_buckets needs {data.noun}s of different lengths. Expected the source "
            "chat. Use sampler: shuffled"
        )
    rows, version = shuffled(data, batch_size, generator)
    pools = []
    for pool in torch.split(rows, POOL):
        flat = pool.flatten()
        pools.append(flat[lengths[flat].argsort(stable=True)].view_as(pool))
    batches = torch.cat(pools)
    return batches[torch.randperm(len(batches), generator=generator)], version
