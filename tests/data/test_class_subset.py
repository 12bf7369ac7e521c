"""Samples of some classes, and their labels in a longer list of classes."""

from __future__ import annotations

import pytest
import torch

from instil.data.class_subset import chosen_classes, of_classes, splits_of_classes
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digits


def samples() -> TensorData:
    label = torch.tensor([2, 0, -100, 1, 2])
    return TensorData({"x": torch.arange(5.0)[:, None]}, label, ["a", "b", "c"])


def test_samples_of_other_classes_and_without_a_label_are_left_out() -> None:
    part = of_classes(samples(), ("c", "a"), ("new", "c", "a"))
    assert part.label.tolist() == [1, 2, 1]
    assert part.index.tolist() == [0, 1, 4]
    assert part.classes == ("new", "c", "a")
    assert part.facts["classes"] == 3
    assert part.__getitems__([1])["x"].tolist() == [[1.0]]
    assert samples().label.tolist() == [2, 0, -100, 1, 2]


def test_pixels_of_other_classes_lose_their_label() -> None:
    label = torch.tensor([[0, 1], [2, 2], [1, -100]])
    pixels = TensorData({"image": torch.rand(3, 1, 1, 2)}, label, ["a", "b", "c"])
    part = of_classes(pixels, ("b",), ("b", "z"))
    assert part.label.tolist() == [[-100, 0], [0, -100]]
    assert part.index.tolist() == [0, 2]


def test_training_and_test_may_have_other_classes() -> None:
    names = tuple("0123456789")
    part = splits_of_classes(digits(), names[5:], names, names)
    assert set(part.train.label.tolist()) == {5, 6, 7, 8, 9}
    assert set(part.test.label.tolist()) == set(range(10))
    assert part.train.index.tolist() == list(range(len(part.train)))
    assert part.classes == part.train.classes == names
    subset = splits_of_classes(digits(), names[5:], names, names, keep_index=True)
    assert subset.train.index.tolist() != list(range(len(subset.train)))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([3], "class_subset: there is no class 3. Expected an index from 0 to 2"),
        (["bb"], "class_subset: unknown class 'bb'. Expected a class of the data. Did you mean"),
        ([], "class_subset: is empty"),
        ([1, "b"], "class_subset: class 'b' is listed twice"),
    ],
)
def test_wrong_choices_are_errors(choice: list[int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_classes(choice, ("a", "b", "c"), "class_subset")


def test_other_labels_have_no_subset() -> None:
    several = ArrayData(torch.rand(2, 1, 4, 4), torch.ones(2, 3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="labels of the kind 'multi' have no class subset"):
        of_classes(several, ("a",), ("a",))
    with pytest.raises(ValueError, match="no sample is of the classes b"):
        of_classes(samples().subset([0, 1]), ("b",), ("b",))
