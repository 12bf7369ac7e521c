"""Samples without labels, and with sequences, boxes and grades as labels."""

from __future__ import annotations

import pytest
import torch

from instil.data.label_kinds import (
    BoxData,
    GradedData,
    SequenceData,
    UnlabelledData,
)
from instil.data.labels import few_labels, labelled, num_labelled
from instil.data.splits import splits


def test_unlabelled_samples_have_no_classes_and_are_split() -> None:
    data = UnlabelledData({"points": torch.rand(20, 5, 3)}, {"points": 5})
    parts = splits({"train": data}, 0.2, 0.2)
    assert (parts.kind, parts.classes, len(parts.train)) == ("none", (), 13)
    assert parts.train.facts == {"points": 5}
    batch = parts.test.__getitems__([0, 1])
    assert batch["points"].shape == (2, 5, 3)
    assert batch["label"].tolist() == [-100, -100]
    with pytest.raises(ValueError, match="num_labeled: 3 of 0 labelled samples"):
        few_labels(data, 3)


def sequences() -> SequenceData:
    return SequenceData(
        {"audio": torch.arange(4.0)[:, None]}, [[0, 1, 1], [], [2], torch.tensor([1, 0])], "abc"
    )


def test_sequences_are_padded_and_have_a_length() -> None:
    batch = sequences().__getitems__([0, 1, 3])
    assert batch["label"].tolist() == [[0, 1, 1], [-100] * 3, [1, 0, -100]]
    assert batch["label_length"].tolist() == [3, 0, 2]
    assert sequences().kind == "sequence"
    part = labelled(sequences())
    assert part.index.tolist() == [0, 2, 3]
    few = few_labels(sequences(), 1)
    assert num_labelled(few) == 1
    assert (few.__getitems__([0, 1, 2, 3])["label_length"] > 0).sum() == 1
    with pytest.raises(ValueError, match="label 3 of sample 0 is none of the 3 classes"):
        SequenceData({"audio": torch.zeros(1, 1)}, [[3]], "abc")


def boxes() -> BoxData:
    return BoxData(
        {"image": torch.rand(3, 1, 8, 8)},
        [[[0, 0, 4, 4], [2, 3, 8, 8]], [], None],
        [[1, 0], [], None],
        ["cat", "dog"],
    )


def test_boxes_are_ragged_and_an_empty_image_has_a_label() -> None:
    data = boxes()
    assert data.kind == "boxes"
    batch = data.__getitems__([0, 1, 2])
    assert batch["num_boxes"].tolist() == [2, 0, -100]
    assert batch["box"].shape == (3, 2, 4)
    assert labelled(data).index.tolist() == [0, 1]
    assert batch["box"][0].tolist() == [[0, 0, 4, 4], [2, 3, 8, 8]]
    assert batch["label"].tolist() == [[1, 0], [-100, -100], [-100, -100]]
    assert (batch["box"][1:] == -100).all()
    selected = data.keep_labels(torch.tensor([1]))
    assert selected.__getitems__([0, 1, 2])["num_boxes"].tolist() == [-100, 0, -100]
    assert (selected.__getitems__([0])["box"] == -100).all()
    assert selected.subset([1]).num_boxes.tolist() == [0]


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([[[0, 0, 4]]], [[1]], r"expected shapes \(k, 4\) and \(k,\), got \(1, 3\)"),
        ([[[0, 0, 4, 4]]], [[1, 0]], r"got \(1, 4\) and \(2,\)"),
        ([[[5, 0, 4, 4]]], [[1]], "no area. Expected finite numbers"),
        ([[[0, 0, 4, 4]]], [[2]], "label 2 of sample 0 is none of the 2 classes"),
        ([[[0, 0, 4, 4]]], [None], "or None for both"),
        ([[[0, 0, 4, 4]]], [], "labels: there are 0. Expected 1"),
    ],
)
def test_wrong_boxes_are_errors(box: list, label: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxData({"image": torch.rand(1, 1, 8, 8)}, box, label, ["cat", "dog"])


def test_grades_are_not_negative() -> None:
    data = GradedData({"query": torch.rand(2, 4)}, torch.tensor([[0.0, 2, -100], [1, 1, 3]]))
    assert (data.kind, data.facts, num_labelled(data)) == ("graded", {"candidates": 3}, 2)
    with pytest.raises(ValueError, match="candidate 1 of sample 0 has -1"):
        GradedData({"query": torch.rand(1, 4)}, torch.tensor([[0.0, -1.0]]))
