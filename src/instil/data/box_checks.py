"""Checks of the boxes of samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def checked_boxes(row: int, boxes: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return boxes (k, 4) and labels (k,) of one sample as tensors.

    Args:
        row: row of the sample, for messages.
        boxes: left, top, right and bottom of each box; None for no label.
        labels: class index of each box; None for no label.

    Raises:
        ValueError: for other shapes, a box without an area, and a number that is not finite.
    """
    if (boxes is None) != (labels is None):
        raise ValueError(f"boxes of sample {row}: expected boxes and labels, or None for both")
    box = torch.as_tensor([] if boxes is None else boxes, dtype=torch.float32)
    label = torch.as_tensor([] if labels is None else labels)
    box = box.reshape(0, 4) if not box.numel() else box
    if box.ndim != 2 or box.shape[1] != 4 or label.shape != (len(box),):
        raise ValueError(
            f"boxes of sample {row}: expected shapes (k, 4) and (k,), got {tuple(box.shape)} and "
            f"{tuple(label.shape)}"
        )
    if not bool((box[:, 2:] > box[:, :2]).all()) or not bool(box.isfinite().all()):
        raise ValueError(
            f"boxes of sample {row}: a box has no area. Expected finite numbers with left < right "
            f"and top < bottom, got {box.tolist()}"
        )
    return box, label
