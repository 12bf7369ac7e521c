"""Suppression of overlapping boxes of a YOLO, compared with a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.functional.boxes import box_iou
from instil.tasks.bases.yolo_suppression import suppressed


def loop(decoded: Tensor, smallest: float, overlap: float, most: int) -> list[list[float]]:
    """The best pair of anchor and class stays; it removes others of its class that overlap."""
    pairs = []
    for anchor in decoded[0].T:
        x, y, width, height = anchor[:4].tolist()
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        for label, score in enumerate(anchor[4:].tolist()):
            if score > smallest:
                pairs.append([*box, score, float(label)])
    kept_pairs: list[list[float]] = []
    for pair in sorted(pairs, key=lambda pair: -pair[4]):
        rivals = [other for other in kept_pairs if other[5] == pair[5]]
        boxes = [torch.tensor([other[:4]]) for other in rivals]
        if all(box_iou(box, torch.tensor([pair[:4]])) <= overlap for box in boxes):
            kept_pairs.append(pair)
    return kept_pairs[:most]


def test_boxes_of_a_class_that_overlap_are_removed() -> None:
    pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(1, 2, 40, generator=generator) * 40
    size = 10 + torch.rand(1, 2, 40, generator=generator) * 10
    scores = torch.rand(1, 3, 40, generator=generator)
    decoded = torch.cat([centre, size, scores], 1)
    for most in (5, 300):
        rows = suppressed(decoded, 0.3, 0.4, most, False)
        expected = torch.tensor(loop(decoded, 0.3, 0.4, most))
        torch.testing.assert_close(rows, expected)
    assert len(expected) < (scores > 0.3).sum()
    assert suppressed(decoded, 2.0, 0.4, 5, False).shape == (0, 6)


def test_a_head_without_suppression_selects_by_score() -> None:
    pytest.importorskip("torchvision")
    rows = torch.tensor([[0.0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 1], [0, 0, 9, 9, 0.1, 1]])
    assert torch.equal(suppressed(rows[None], 0.5, 0.4, 10, True), rows[:2])
    assert torch.equal(suppressed(rows[None], 0.0, 0.4, 1, True), rows[:1])
