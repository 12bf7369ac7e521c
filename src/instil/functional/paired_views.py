"""Pairs of the views of a sample in a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def paired_views(index: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Match the two views of each sample in a batch.

    Rows are sorted by index and view, and each row is compared with the next one.

    Args:
        index: sample index of each row (M,).
        view: view number of each row (M,). None: the rows of a sample are in the order of views.

    Returns:
        Row, next row, and whether both are the two views of one sample, each (M - 1,).
    """
    by_view = torch.arange(len(index), device=index.device)
    if view is not None:
        by_view = view.argsort(stable=True)
    # Stable: rows of one sample stay in the order of their views.
    ordered, order = index[by_view].sort(stable=True)
    row = by_view[order]
    same = ordered[1:] == ordered[:-1]
    # Of three rows of one sample only the first two form a pair.
    rank = torch.arange(len(row), device=row.device) - torch.searchsorted(ordered, ordered)
    is_even = (rank % 2 == 0)[:-1]
    return row[:-1], row[1:], same & is_even
