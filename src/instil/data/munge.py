"""Synthetic rows of a table by MUNGE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.data.table_encoder import Feature

CHUNK = 1024
"""Rows whose distances to all rows are computed at once."""


def munge_rows(
    rows: Tensor,
    features: Sequence[Feature],
    copies: int,
    swap: float = 0.5,
    scale: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return synthetic rows near the given ones (Buciluă, Caruana & Niculescu-Mizil 2006).

    Each copy of a row x with the nearest other row x' changes each feature with probability
    ``swap``: a category becomes that of x', a number is drawn from N(x', abs(x - x') / ``scale``).
    The paper changes x' too, and so depends on the order of the rows; here x' stays.

    Args:
        rows: (N, F), encoded rows, N > 1.
        features: columns of each feature.
        copies: number of synthetic rows per row.
        swap: probability of a change.
        scale: divisor s of the standard deviation; a higher value stays closer to x'.
        seed: seed of the draws.

    Returns:
        (copies * N, F), all first copies, then all second ones.

    Raises:
        ValueError: for a single row.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [9.0]])
        >>> munge_rows(rows, [Feature("x", 0, 1)], copies=1, swap=1.0, scale=1e6).round()
        tensor([[1.],
                [0.],
                [1.]])
    """
    if len(rows) < 2:
        raise ValueError(f"munge: a neighbour needs two rows. Expected at least 2, got {len(rows)}")
    neighbour = rows[_nearest(rows)]
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.tensor([one.start for one in features if one.categories is None])
    widths = torch.tensor([feature.width for feature in features])
    synthetic: list[Tensor] = []
    for _ in range(copies):
        is_swapped = torch.rand(len(rows), len(features), generator=generator) < swap
        # All columns of a feature change together.
        is_swapped = is_swapped.repeat_interleave(widths, 1)
        source = neighbour.clone()
        noise = torch.randn(len(rows), len(numbers), generator=generator)
        if len(numbers):
            distance = (rows - neighbour)[:, numbers].abs()
            source[:, numbers] += noise * distance / scale
        synthetic.append(torch.where(is_swapped, source, rows))
    return torch.cat(synthetic)


def _nearest(rows: Tensor) -> Tensor:
    """Index (N,) of the nearest other row in Euclidean distance."""
    # In double precision ties between neighbours are resolved equally on every machine.
    values = rows.double()
    nearest: list[Tensor] = []
    for start in range(0, len(rows), CHUNK):
        distance = torch.cdist(values[start : start + CHUNK], values)
        index = torch.arange(len(distance))
        distance[index, index + start] = torch.inf
        nearest.append(distance.argmin(1))
    return torch.cat(nearest)
