"""Boxes of objects in images."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.items.batch import UNLABELLED, Batch, to_float32


def boxes_as_fractions(batch: Batch, like: Tensor) -> Tensor:
    """Return the boxes of a batch as fractions of the image.

    Args:
        batch: ``boxes`` (N, M, 4) are fractions already. Otherwise ``box`` (N, M, 4) are edges in
            pixels of ``image`` (N, C, H, W); -100 marks no box.
        like: tensor (N, ...) with the type and device of the result for a batch without boxes.

    Returns:
        Left, top, right and bottom (N, M, 4); zeros for no box. M is 0 for a batch without boxes.

    Example:
        >>> box = torch.tensor([[[0.0, 2.0, 4.0, 4.0], [-100.0, -100.0, -100.0, -100.0]]])
        >>> boxes_as_fractions({"image": torch.zeros(1, 1, 4, 8), "box": box}, box)
        tensor([[[0.0000, 0.5000, 0.5000, 1.0000],
                 [0.0000, 0.0000, 0.0000, 0.0000]]])
    """
    if "boxes" in batch:
        fractions: Tensor = batch["boxes"]
        return fractions
    box = batch.get("box")
    # Boxes (N, 4) are edges in bins, whose number is unknown here.
    if "image" not in batch or box is None or box.ndim != 3:
        return like.new_zeros(len(like), 0, 4)
    height, width = batch["image"].shape[-2:]
    size = torch.tensor([width, height, width, height], dtype=box.dtype, device=box.device)
    is_box = (box != UNLABELLED).all(-1, keepdim=True)
    return torch.where(is_box, box / size, 0.0)


def generalized_iou(boxes: Tensor, other: Tensor) -> Tensor:
    """Generalized intersection over union (Rezatofighi et al. 2019).

    Args:
        boxes: (..., 4), left, top, right and bottom; a box that ends before it begins is empty.
        other: (..., 4); the leading dimensions broadcast.

    Returns:
        Values (...) in [-1, 1]. It is 1 for equal boxes with an area.

    Example:
        >>> generalized_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([2.0, 0, 4, 2]))
        tensor(0.)
    """
    boxes, other = to_float32(boxes), to_float32(other)
    intersection, union = _overlap(boxes, other)
    outer_low = torch.minimum(boxes[..., :2], other[..., :2])
    outer_high = torch.maximum(boxes[..., 2:], other[..., 2:])
    outer = _area(outer_low, outer_high)
    return _ratio(intersection, union) - _ratio(outer - union, outer)


def distance_iou(boxes: Tensor, other: Tensor) -> Tensor:
    """Intersection over union minus the normalised distance of the centres (Zheng et al. 2020).

    Args:
        boxes: (..., 4), left, top, right and bottom.
        other: (..., 4); the leading dimensions broadcast.

    Returns:
        Values (...) in (-1, 1]: the squared distance of the centres is divided by the squared
        diagonal of the smallest box around both.

    Example:
        >>> distance_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([2.0, 0, 4, 2]))
        tensor(-0.2000)
    """
    boxes, other = to_float32(boxes), to_float32(other)
    outer_low = torch.minimum(boxes[..., :2], other[..., :2])
    outer_high = torch.maximum(boxes[..., 2:], other[..., 2:])
    diagonal = (outer_high - outer_low).square().sum(-1)
    between = (boxes[..., :2] + boxes[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    return box_iou(boxes, other) - _ratio(between.square().sum(-1), diagonal)


def box_iou(boxes: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union (...) of boxes; 0 if both are empty.

    Args:
        boxes: (..., 4), left, top, right and bottom; a box that ends before it begins is empty.
        other: (..., 4).

    Example:
        >>> box_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2]))
        tensor(0.3333)
    """
    return _ratio(*_overlap(boxes, other))


def corners(boxes: Tensor) -> Tensor:
    """Convert boxes from centre and size to left, top, right and bottom.

    Args:
        boxes: (..., 4), horizontal and vertical centre, width and height.

    Returns:
        Boxes of the same shape.

    Example:
        >>> corners(torch.tensor([0.5, 0.5, 1.0, 0.5]))
        tensor([0.0000, 0.2500, 1.0000, 0.7500])
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def centres(boxes: Tensor) -> Tensor:
    """Convert boxes from left, top, right and bottom to centre and size.

    Args:
        boxes: (..., 4).

    Returns:
        Boxes of the same shape.

    Example:
        >>> centres(torch.tensor([0.0, 0.25, 1.0, 0.75]))
        tensor([0.5000, 0.5000, 1.0000, 0.5000])
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def _overlap(boxes: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of the intersection and of the union."""
    low = torch.maximum(boxes[..., :2], other[..., :2])
    high = torch.minimum(boxes[..., 2:], other[..., 2:])
    intersection = _area(low, high)
    areas = _area(boxes[..., :2], boxes[..., 2:]) + _area(other[..., :2], other[..., 2:])
    return intersection, areas - intersection


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp_min(0).prod(-1)


def _ratio(value: Tensor, total: Tensor) -> Tensor:
    # The divisor is replaced where it is 0: torch.where alone would pass on a gradient of NaN.
    return torch.where(total > 0, value / torch.where(total > 0, total, 1), 0.0)
