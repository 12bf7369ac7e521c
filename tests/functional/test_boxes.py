"""Boxes: fractions, generalized IoU and formats, against torchvision where it is installed."""

from __future__ import annotations

import pytest
import torch

from instil.functional.boxes import boxes_as_fractions, centres, corners, generalized_iou


def test_fractions_come_from_pixels_or_from_the_batch() -> None:
    image = torch.zeros(2, 3, 10, 20)
    box = torch.tensor([[[5.0, 5, 10, 10], [-100.0] * 4], [[0.0, 0, 20, 10], [2.0, 1, 4, 2]]])
    fractions = boxes_as_fractions({"image": image, "box": box}, image)
    torch.testing.assert_close(fractions[0], torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.0] * 4]))
    torch.testing.assert_close(fractions[1, 0], torch.tensor([0.0, 0, 1, 1]))
    batch = {"image": image, "box": box, "boxes": torch.rand(2, 1, 4)}
    assert boxes_as_fractions(batch, image) is batch["boxes"]
    for other in ({"image": image, "box": torch.zeros(2, 4)}, {"image": image}):
        assert boxes_as_fractions(other, image).shape == (2, 0, 4)


def test_generalized_iou_is_that_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(0)
    low, size = torch.rand(2, 30, 2, generator=generator)
    boxes = torch.cat([low, low + size], -1)
    other = boxes.flip(0)
    expected = ops.generalized_box_iou(boxes, other)
    torch.testing.assert_close(generalized_iou(boxes[:, None], other), expected)


def test_empty_boxes_have_a_finite_gradient() -> None:
    boxes = torch.zeros(2, 4, requires_grad=True)
    value = generalized_iou(boxes, torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 2, 2]]))
    value.sum().backward()
    assert value.tolist() == [0, -0.75]
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def test_formats_are_inverse() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.8]])
    torch.testing.assert_close(corners(centres(boxes)), boxes)
