"""Anchors around the objects of an image, next to those that an assignment gives a box."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.boxes import box_iou, distance_iou

NUM_NEAREST = 9
"""Anchors of each level whose overlaps decide on the threshold of a box, as in ATSS."""
ANCHOR_SCALE = 8.0
"""Side of the square of an anchor over its stride, as in ATSS and GFL."""


def inside_boxes(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Mask of the anchors whose centre is inside of a box.

    Args:
        anchors: (N, A, 4), left, top, right and bottom.
        boxes: (N, M, 4); boxes without area are ignored.

    Returns:
        Boolean (N, A).

    Example:
        >>> anchors = torch.tensor([[[0.0, 0, 2, 2], [4.0, 4, 6, 6]]])
        >>> inside_boxes(anchors, torch.tensor([[[0.0, 0, 3, 3]]]))
        tensor([[ True, False]])
    """
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    low = centre[:, :, None] - boxes[:, None, :, :2]
    high = boxes[:, None, :, 2:] - centre[:, :, None]
    return (torch.cat([low, high], -1) > 0).all(-1).any(-1)


def valuable_region(anchors: Tensor, boxes: Tensor, gamma: float = 0.25) -> Tensor:
    """Overlaps of the anchors in the valuable localisation region (Zheng et al. 2022).

    The region of a box has the anchors whose DIoU is at least ``gamma`` times the threshold of the
    box, and below it. The threshold is that of ATSS: mean plus standard deviation of the IoU of the
    9 nearest anchors of each level. An anchor is a square of 8 strides around its centre.

    Args:
        anchors: (N, A, 4), whose width is the stride of their level.
        boxes: (N, M, 4); boxes without area are ignored.
        gamma: share of the threshold, in [0, 1].

    Returns:
        Float (N, A): the largest IoU with a box whose region has the anchor, 0 outside.

    Example:
        >>> anchors = torch.tensor([[[-1.0, -1, 1, 1], [7.0, -1, 9, 1], [15.0, -1, 17, 1]]])
        >>> valuable_region(anchors, torch.tensor([[[-8.0, -8, 8, 8]]]))
        tensor([[0.0000, 0.3333, 0.0000]])
    """
    strides = (anchors[..., 2] - anchors[..., 0]).round().detach()
    regions = [
        _region(*each, gamma) for each in zip(_squares(anchors), strides, boxes, strict=True)
    ]
    return torch.stack(regions)


def _squares(anchors: Tensor) -> Tensor:
    """Squares of ``ANCHOR_SCALE`` times the width of each anchor around its centre."""
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    half = ANCHOR_SCALE * (anchors[..., 2:] - anchors[..., :2]) / 2
    return torch.cat([centre - half, centre + half], -1)


def _region(squares: Tensor, strides: Tensor, boxes: Tensor, gamma: float) -> Tensor:
    """Overlaps (A,) of the anchors of one image in its region."""
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    if not len(boxes):
        return squares.new_zeros(len(squares))
    overlaps = box_iou(squares[:, None], boxes)
    threshold = _thresholds(squares, strides, boxes, overlaps)
    distance = distance_iou(squares[:, None], boxes)
    is_inside = (distance >= gamma * threshold) & (distance < threshold)
    return torch.where(is_inside, overlaps, 0.0).amax(1)


def _thresholds(squares: Tensor, strides: Tensor, boxes: Tensor, overlaps: Tensor) -> Tensor:
    """Thresholds (M,) of ATSS."""
    centres = (squares[:, :2] + squares[:, 2:]) / 2
    distances = torch.cdist(centres, (boxes[:, :2] + boxes[:, 2:]) / 2)
    candidates = []
    for stride in set(strides.tolist()):
        rows = (strides == stride).nonzero()[:, 0]
        nearest = distances[rows].topk(min(NUM_NEAREST, len(rows)), 0, largest=False).indices
        candidates.append(overlaps[rows].gather(0, nearest))
    values = torch.cat(candidates)
    spread = values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
    return values.mean(0) + spread
