"""Scenes of several digits: boxes, splits and errors."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.digit_objects import digit_objects


def test_boxes_hold_the_digits_and_do_not_overlap() -> None:
    data = digit_objects(6, 3, size=48)
    assert (data.kind, len(data.train), len(data.test)) == ("boxes", 6, 3)
    assert data.train.facts == {"classes": 10, "channels": 1, "size": 48}
    batch = data.train.__getitems__(range(6))
    assert batch["num_boxes"].min() >= 1
    for image, boxes, count in zip(batch["image"], batch["box"], batch["num_boxes"], strict=True):
        covered = torch.zeros(48, 48)
        for left, top, right, bottom in boxes[:count].int().tolist():
            assert 0 <= left < right <= 48
            assert 0 <= top < bottom <= 48
            covered[top:bottom, left:right] += 1
        assert covered.max() == 1
        # All that is brighter than the noise lies inside the boxes.
        assert (image[0][covered == 0] <= 0.51).all()
    again = digit_objects(6, 3, size=48).train.__getitems__(range(6))
    assert torch.equal(batch["image"], again["image"])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"largest: 8 is out of range\. Expected 12 <= largest"):
        digit_objects(largest=8)
