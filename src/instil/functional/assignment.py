"""One-to-one assignment of predictions."""

from __future__ import annotations

import torch
from torch import Tensor


def assign_columns(cost: Tensor) -> Tensor:
    """Assign a column to each row of every matrix with the smallest total cost.

    The Hungarian method runs on the CPU, so that a device is synchronised once per call.

    Args:
        cost: (N, rows, columns), where rows <= columns. Values that are not finite count as the
            largest finite number.

    Returns:
        Column of each row (N, rows), int64; no column is used twice.

    Raises:
        ValueError: for fewer columns than rows.

    Example:
        >>> assign_columns(torch.tensor([[[1.0, 0.0], [0.0, 5.0]]]))
        tensor([[1, 0]])
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped, unused-ignore]

    rows, columns = cost.shape[1:]
    if columns < rows:
        raise ValueError(
            f"cost: too few columns. Expected at least {rows}, one for each row, got {columns}."
        )
    largest = torch.finfo(torch.float32).max / (1 + rows)
    limited = cost.detach().float().nan_to_num(largest, largest, -largest)
    matrices = limited.clamp(-largest, largest).cpu().double().numpy()
    assigned = [torch.from_numpy(linear_sum_assignment(matrix)[1]) for matrix in matrices]
    if not assigned:
        return torch.zeros(0, rows, dtype=torch.int64, device=cost.device)
    return torch.stack(assigned).to(cost.device)
