"""Herding: samples whose mean stays close to the mean of a set."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32


def herding_order(features: Tensor, count: int) -> Tensor:
    """Choose samples one after another, so that their mean approximates that of all samples.

    Each choice minimises the distance between the mean of the chosen features and the mean of all
    features (Rebuffi et al. 2017, Algorithm 4). The first n chosen samples are the choice for n.

    Args:
        features: (N, D).
        count: number of samples to choose; all of them if there are fewer.

    Returns:
        Rows in the order of their choice, int64.

    Example:
        >>> herding_order(torch.tensor([[0.0], [3.0], [4.0], [9.0]]), 2)
        tensor([2, 1])
    """
    features = to_float32(features)
    mean = features.mean(0)
    total = torch.zeros_like(mean)
    is_free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen: list[Tensor] = []
    for size in range(1, min(count, len(features)) + 1):
        distance = (mean - (total + features) / size).square().sum(1)
        row = distance.masked_fill(~is_free, torch.inf).argmin()
        is_free[row] = False
        total = total + features[row]
        chosen.append(row)
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
