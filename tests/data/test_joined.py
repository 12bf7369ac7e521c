from __future__ import annotations

import pytest
import torch

from instil.data.images import ArrayData
from instil.data.joined import JoinedSamples


def images(value: float, count: int, start: int = 0, size: int = 4) -> ArrayData:
    image = torch.arange(count).view(-1, 1, 1, 1) / 100 + value
    return ArrayData(
        image.expand(-1, 1, size, size),
        torch.arange(count) % 2,
        ["a", "b"],
        torch.arange(start, start + count),
    )


def test_rows_come_from_their_data_set_in_the_order_of_the_request() -> None:
    joined = JoinedSamples([images(0.1, 3), images(0.5, 2, start=10)])
    batch = joined.__getitems__([4, 0, 3, 2])
    assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx([0.51, 0.1, 0.5, 0.12])
    assert batch["label"].tolist() == [1, 0, 0, 0]
    assert batch["index"].tolist() == [11, 0, 10, 2]
    assert joined.facts == images(0.1, 3).facts
    assert joined.augmentation is ArrayData.augmentation


def test_equal_indices_are_numbered_again() -> None:
    joined = JoinedSamples([images(0.1, 3), images(0.5, 2)])
    assert joined.index.tolist() == [0, 1, 2, 3, 4]


def test_a_subset_keeps_its_rows() -> None:
    joined = JoinedSamples([images(0.1, 3), images(0.5, 2, start=10)])
    part = joined.subset([3, 1]).subset([0])
    assert part.__getitems__([0])["image"].mean() == 0.5
    assert part.index.tolist() == [10]


def test_other_classes_and_shapes_are_errors() -> None:
    other = images(0.5, 2)
    other.classes = ("a", "c")
    with pytest.raises(ValueError, match="different classes"):
        JoinedSamples([images(0.1, 3), other])
    joined = JoinedSamples([images(0.1, 3), images(0.5, 2, size=5)])
    with pytest.raises(ValueError, match=r"'image' of joined samples has different shapes"):
        joined.__getitems__([0, 4])
