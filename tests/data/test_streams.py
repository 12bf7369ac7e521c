"""Streams of samples, and their splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.images import ArrayData
from instil.data.stream_splits import stream_splits
from instil.data.streams import NoLengthError, Stream


def numbers(shard: int, count: int = 10) -> Iterator[dict[str, Any]]:
    for position in range(count):
        yield {"x": [float(shard), float(position)], "label": position % 2}


def stream(**options: Any) -> Stream:
    return Stream(numbers, 3, ["even", "odd"], **options)


def test_a_stream_knows_shapes_and_kind_but_no_length() -> None:
    data = stream()
    assert (data.kind, data.classes, data.facts) == (
        "single",
        ("even", "odd"),
        {"classes": 2, "features": 2},
    )
    assert data.__getitems__([1])["x"].tolist() == [[0, 1]]
    for use in (len, lambda one: one.label, lambda one: one.index, lambda one: one.subset([0])):
        with pytest.raises(NoLengthError, match="the training data are a stream"):
            use(data)
    with pytest.raises(AttributeError):
        data.missing  # noqa: B018


def test_the_index_of_a_sample_is_stable_and_unique() -> None:
    data = stream()
    indices = {shard: [index for index, _ in data.shard(shard)] for shard in range(3)}
    assert indices[1] == list(range(1, 31, 3))
    assert sorted(itertools.chain(*indices.values())) == list(range(30))


def test_counts_take_the_first_samples_out_of_the_training_data() -> None:
    splits = stream_splits({"train": stream()}, validation=9, test=4)
    assert (len(splits.test), len(splits.validation)) == (4, 9)
    assert splits.test.__getitems__(range(4))["x"].tolist() == [[0, row] for row in range(4)]
    assert splits.validation.__getitems__([0, 8])["x"].tolist() == [[0, 4], [1, 2]]
    rest = splits.train
    assert isinstance(rest, Stream)
    assert [index for index, _ in rest.shard(0)] == []
    assert [index for index, _ in rest.shard(1)] == list(range(10, 31, 3))
    with pytest.raises(ValueError, match="the stream has 30 samples, which are fewer than 31"):
        stream().take(31)


def test_other_splits_are_read_into_memory() -> None:
    parts = {"train": stream(), "validation": stream(), "test": stream()}
    splits = stream_splits(parts, validation=0.15, test=7)
    assert (len(splits.validation), len(splits.test)) == (30, 7)
    assert [index for index, _ in splits.train.shard(0)] == list(range(0, 30, 3))


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.15, 5, r"^validation: a share of 0\.15 needs the number .* set validation: 1000"),
        (5, 0.15, "^test: a share"),
        (2.5, 5, "^validation: expected a whole number of samples, got 2.5"),
    ],
)
def test_a_share_needs_a_length(validation: float, test: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream_splits({"train": stream()}, validation, test)


def test_pictures_sequences_and_missing_labels() -> None:
    def read(shard: int) -> Iterator[dict[str, Any]]:
        for position in range(8):
            yield {
                "image": np.full((1, 4, 4), position, np.uint8),
                "audio": [1.0] * (1 + position % 3),
                "label": "ab"[: position % 3] or None,
            }

    data = Stream(read, 1, ["a", "b"], "sequence")
    assert data.kind == "sequence"
    # The audio of these samples has one length, and the batch still has the lengths.
    values = [data.decoded(index, row) for index, row in list(data.shard(0))[1:8:3]]
    batch = data.batch([1, 4, 7], values)
    assert batch["image"][:, 0, 0, 0].mul(255).round().tolist() == [1, 4, 7]
    assert batch["audio_length"].tolist() == [2, 2, 2]
    assert batch["label"].tolist() == [[0], [0], [0]]
    assert data.head.__getitems__([0, 2])["label_length"].tolist() == [0, 2]


def test_images_have_the_augmentation_of_images() -> None:
    def read(shard: int) -> Iterator[dict[str, Any]]:
        yield from ({"image": torch.rand(3, 4, 4), "label": 0} for _ in range(3))

    assert Stream(read, classes=["a"]).augmentation is ArrayData.augmentation


def bad(rows: list[Any]) -> Stream:
    return Stream(lambda shard: rows, classes=["a", "b"])


def raises(shard: int) -> Iterator[dict[str, Any]]:
    yield {"x": [0.0], "label": 0}
    raise OSError("connection lost")


def test_wrong_streams_are_errors_with_the_place() -> None:
    with pytest.raises(ValueError, match="the stream has no samples"):
        bad([])
    with pytest.raises(ValueError, match=r"shard 0 .* after 1 samples: expected a dict .* got int"):
        bad([{"x": [1.0], "label": 0}, 3])
    with pytest.raises(ValueError, match="sample 1 of the stream has no x"):
        bad([{"x": [1.0], "label": 0}, {"label": 0}])
    with pytest.raises(ValueError, match="after 1 samples: OSError: connection lost"):
        Stream(raises, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"^classes: the classes of a stream"):
        Stream(numbers, 3)
    with pytest.raises(ValueError, match="shuffle_buffer: expected at least 1"):
        stream(shuffle_buffer=0)
    data = bad([{"x": [1.0], "label": 0}])
    with pytest.raises(ValueError, match="samples 70 to 70 of the stream: label 5"):
        data.batch([70], [{"x": np.ones(1), "label": np.int64(5)}])
