"""Weights of micro-batches in the mean over the global batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def loss_weights(
    counts: list[dict[str, Tensor]], sum_over_ranks: Callable[[Tensor], Tensor]
) -> list[dict[str, Tensor]]:
    """Compute the weight of each micro-batch in the mean over all micro-batches of all ranks.

    Args:
        counts: loss -> number of items in each update, for each micro-batch.
        sum_over_ranks: sums a tensor over ranks.

    Returns:
        Loss -> weight in each update, for each micro-batch; 0 if no rank has an item.
    """
    if not counts[0]:
        return [{} for _ in counts]
    sizes = [count.numel() for count in counts[0].values()]
    rows = []
    for micro_batch in counts:
        rows.append(torch.cat([count.reshape(-1).float() for count in micro_batch.values()]))
    local = torch.stack(rows)
    total = sum_over_ranks(local.sum(0))
    return [
        dict(zip(counts[0], row.split(sizes), strict=True))
        for row in torch.where(total > 0, local / total, 0)
    ]
