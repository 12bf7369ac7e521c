"""Samples of any kind: batches, subsets, labels and facts."""

from __future__ import annotations

import pytest
import torch

from instil.core import UNLABELLED
from instil.data.images import ArrayData
from instil.data.labels import few_labels, labelled
from instil.data.samples import RealData, TensorData

CLASSES = ["no", "yes", "both"]


def data() -> TensorData:
    """Ten samples with labels of 2 x 2 items."""
    ids = torch.arange(30).reshape(10, 3)
    return TensorData(
        {"input_ids": ids, "mask": ids > 4},
        torch.arange(40).reshape(10, 2, 2) % 3,
        CLASSES,
        {"vocabulary": 30},
    )


def test_a_batch_has_the_rows_of_every_tensor() -> None:
    batch = data().__getitems__([7, 2])
    assert list(batch) == ["input_ids", "mask", "label", "index", "view"]
    assert batch["input_ids"].tolist() == [[21, 22, 23], [6, 7, 8]]
    assert batch["index"].tolist() == [7, 2]
    assert batch["label"].shape == (2, 2, 2)
    assert data()[3]["input_ids"].tolist() == [9, 10, 11]


def test_a_subset_keeps_its_indices_and_leaves_the_whole() -> None:
    whole = data()
    part = whole.subset([5, 1]).subset([1])
    assert part.__getitems__([0])["input_ids"].tolist() == [[3, 4, 5]]
    assert part.index.tolist() == [1]
    assert len(whole) == 10
    assert len(whole.tensors["input_ids"]) == 10


def test_facts_are_the_arguments_of_a_builder() -> None:
    assert data().facts == {"classes": 3, "vocabulary": 30}
    assert data().kind == "single"
    assert ArrayData(torch.rand(2, 3, 4, 5), torch.zeros(2), CLASSES).facts == {
        "classes": 3,
        "channels": 3,
        "size": (4, 5),
    }
    assert ArrayData(torch.rand(2, 1, 4, 4), torch.zeros(2, 3), CLASSES).facts["size"] == 4


def test_few_of_labels_with_several_items() -> None:
    few = few_labels(data(), 4, seed=3)
    assert (few.label != UNLABELLED).flatten(1).all(1).sum() == 4
    assert (few.label == UNLABELLED).flatten(1).all(1).sum() == 6
    assert len(labelled(few)) == 4
    assert torch.equal(few.label[few.label != UNLABELLED], data().label[few.label != UNLABELLED])


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 labels for 3 rows of 'x'"):
        TensorData({"x": torch.zeros(3, 1)}, torch.zeros(2), CLASSES)
    with pytest.raises(
        ValueError, match=r"label 3 of sample 1 is none of the 3 classes \(0 to 2, or -100: none\)"
    ):
        TensorData({"x": torch.zeros(2, 1)}, torch.tensor([[0, 1], [2, 3]]), CLASSES)
    with pytest.raises(ValueError, match="2 labels for 10 samples"):
        data().relabel(torch.zeros(2))


def test_real_labels() -> None:
    image, label = (
        torch.rand(4, 1, 2, 2),
        torch.tensor([[0.5, -7.0], [torch.nan, 2.0], [-100.0, torch.nan], [1e4, 0.0]]),
    )
    samples = RealData({"image": image}, label, ["angle", "way"], {"size": 2})
    assert samples.kind == "real"
    assert samples.facts == {"classes": 2, "size": 2}
    assert samples.__getitems__([1, 2])["label"].tolist() == [
        [UNLABELLED, 2],
        [UNLABELLED, UNLABELLED],
    ]
    assert labelled(samples).index.tolist() == [0, 1, 3]
    few = few_labels(samples, 2)
    assert int((few.label != UNLABELLED).any(1).sum()) == 2
    assert few.kind == "real"
    with pytest.raises(ValueError, match=r"must have the shape \(N, 2\), not \(4, 1\)"):
        samples.relabel(label[:, :1])
    with pytest.raises(ValueError, match="the label of sample 3 is infinite"):
        samples.relabel(label.masked_fill(label == 1e4, torch.inf))
