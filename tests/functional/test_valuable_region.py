"""Valuable localisation region against loops over anchors and boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.functional.boxes import distance_iou
from instil.functional.valuable_region import inside_boxes, valuable_region


def pyramid() -> Tensor:
    """Anchors (112 + 28, 4) of the strides 8 and 16 in an image of 112 x 64 pixels."""
    levels = []
    for stride in (8, 16):
        rows, columns = torch.meshgrid(
            torch.arange(0, 64, stride), torch.arange(0, 112, stride), indexing="ij"
        )
        centres = torch.stack([columns.flatten(), rows.flatten()], 1).float()
        levels.append(torch.cat([centres - stride / 2, centres + stride / 2], 1))
    return torch.cat(levels)


BOXES = torch.tensor([[20.0, 10, 90, 55], [0, 0, 30, 28], [0, 0, 0, 0]])


def loops(anchors: list[list[float]], boxes: list[list[float]], gamma: float) -> list[float]:
    ops = pytest.importorskip("torchvision.ops")
    squares = []
    for left, top, right, bottom in anchors:
        x, y, half = (left + right) / 2, (top + bottom) / 2, 4 * (right - left)
        squares.append([x - half, y - half, x + half, y + half])
    overlaps = [0.0] * len(anchors)
    for box in boxes:
        if box[2] <= box[0]:
            continue
        target = torch.tensor([box])
        iou = ops.box_iou(torch.tensor(squares), target)[:, 0]
        diou = ops.distance_box_iou(torch.tensor(squares), target)[:, 0]
        candidates = []
        for stride in (8, 16):
            rows = [row for row, each in enumerate(anchors) if each[2] - each[0] == stride]
            centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2

            def distance(row: int, centre: tuple[float, float] = centre) -> float:
                left, top, right, bottom = anchors[row]
                x, y = (left + right) / 2 - centre[0], (top + bottom) / 2 - centre[1]
                return x * x + y * y

            candidates += sorted(rows, key=distance)[:9]
        threshold = float(iou[candidates].mean() + iou[candidates].std())
        for row in range(len(anchors)):
            if gamma * threshold <= float(diou[row]) < threshold:
                overlaps[row] = max(overlaps[row], float(iou[row]))
    return overlaps


@pytest.mark.parametrize("gamma", [0.25, 0.6])
def test_the_region_equals_loops(gamma: float) -> None:
    anchors = pyramid()
    expected = loops(anchors.tolist(), BOXES.tolist(), gamma)
    no_boxes = torch.zeros_like(BOXES)
    region = valuable_region(anchors.expand(2, -1, -1), torch.stack([BOXES, no_boxes]), gamma)
    assert 10 < sum(value > 0 for value in expected) < len(anchors)
    torch.testing.assert_close(region[0], torch.tensor(expected))
    assert not region[1].any()


def test_distance_iou_is_that_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(0)
    low, size = torch.rand(2, 30, 2, generator=generator)
    boxes = torch.cat([low, low + size], -1)
    other = boxes.flip(0)
    expected = ops.distance_box_iou(boxes, other)
    torch.testing.assert_close(distance_iou(boxes[:, None], other), expected)


def test_centres_inside_of_boxes() -> None:
    anchors = pyramid()
    inside = inside_boxes(anchors[None], BOXES[None])[0]
    for (left, top, right, bottom), value in zip(anchors.tolist(), inside, strict=True):
        x, y = (left + right) / 2, (top + bottom) / 2
        expected = any(a < x < c and b < y < d for a, b, c, d in BOXES.tolist())
        assert bool(value) == expected
    assert not inside_boxes(anchors[None], torch.zeros(1, 0, 4)).any()
