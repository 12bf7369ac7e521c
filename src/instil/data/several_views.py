"""Layout of several views of an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHANNELS = (1, 3, 4)
"""Numbers of channels that are recognised in the last dimension."""


def views_of(array: NDArray[Any]) -> Tensor:
    """Return views as float32 (N, V, C, H, W).

    Args:
        array: (N, V, H, W), (N, V, H, W, C) or (N, V, C, H, W); uint8 becomes [0, 1].

    Raises:
        ValueError: for another shape, and values that are not finite.
    """
    if array.ndim == 4:
        array = array[:, :, None]
    if array.ndim != 5 or not array.shape[1]:
        raise ValueError(
            "columns.views: wrong shape. Expected (N, V, H, W), (N, V, H, W, C) or "
            f"(N, V, C, H, W) with at least one view, got {array.shape}"
        )
    if array.shape[4] in CHANNELS and array.shape[2] not in CHANNELS:
        array = np.moveaxis(array, 4, 2)
    views = torch.from_numpy(np.ascontiguousarray(array))
    views = views.float() / 255 if array.dtype == np.uint8 else views.float()
    is_finite = views.isfinite().flatten(1).all(1)
    if not is_finite.all():
        row = int((~is_finite).nonzero()[0])
        raise ValueError(
            f"columns.views: row {row} has NaN or infinite values. Expected finite numbers. Remove "
            "the row, or replace the view by another one of the object"
        )
    return views
