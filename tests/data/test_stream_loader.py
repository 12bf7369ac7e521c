"""Order and parts of the batches of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from instil.data.stream_loader import StreamLoader
from instil.data.streams import Stream

SIZES = (40, 7, 90, 33, 0, 21, 60, 18, 50, 3)


def read(shard: int) -> Iterator[dict[str, Any]]:
    for position in range(SIZES[shard]):
        yield {"x": [float(shard), float(position)], "label": position % 2}


def stream(num_shards: int = len(SIZES), **options: Any) -> Stream:
    return Stream(read, num_shards, ["even", "odd"], **options)


def indices(loader: StreamLoader, epoch: int = 0) -> list[int]:
    loader.set_epoch(epoch)
    return torch.cat([batch["index"] for batch in loader]).tolist()


def test_a_pass_has_every_sample_once_in_an_order_of_seed_and_epoch() -> None:
    data = stream()
    order = indices(StreamLoader(data, 23))
    assert len(order) == len(set(order)) == sum(SIZES) // 23 * 23
    assert order == indices(StreamLoader(data, 23))
    assert order != indices(StreamLoader(data, 23), epoch=1)
    assert order != indices(StreamLoader(data, 23, seed=1))
    batch = next(iter(StreamLoader(data, 23)))
    shard, position = batch["x"].long().unbind(1)
    assert torch.equal(batch["index"], position * len(SIZES) + shard)
    assert torch.equal(batch["label"], position % 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_order_or_the_random_state(workers: int) -> None:
    data = stream()
    expected = indices(StreamLoader(data, 20), epoch=2)
    state = torch.get_rng_state()
    assert indices(StreamLoader(data, 20, workers=workers), epoch=2) == expected
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("num_shards", [10, 7])
def test_ranks_read_disjoint_parts(num_shards: int) -> None:
    data = stream(num_shards)
    parts = [indices(StreamLoader(data, 4, rank=rank, world=2)) for rank in range(2)]
    union = set(parts[0]) | set(parts[1])
    assert len(union) == len(parts[0]) + len(parts[1])
    # Every rank leaves out less than its half of a batch, and one sample of a shard at most.
    assert len(union) >= sum(SIZES[:num_shards]) - 2
    shards = [{index % num_shards for index in part} for part in parts]
    assert (not shards[0] & shards[1]) == (num_shards % 2 == 0)


def test_micro_batches_are_parts_of_the_batch() -> None:
    data = stream()
    whole = indices(StreamLoader(data, 20))
    loader = StreamLoader(data, 20, accumulate=3)
    assert indices(loader) == whole
    assert [len(batch["index"]) for batch in loader][:4] == [7, 7, 6, 7]


def test_a_buffer_of_one_keeps_the_order_of_a_shard() -> None:
    data = stream(1, shuffle_buffer=1)
    assert indices(StreamLoader(data, 10)) == list(range(40))
    assert indices(StreamLoader(stream(1), 10)) != list(range(40))


def test_views_and_augmentation() -> None:
    loader = StreamLoader(stream(), 20, views=2, augment=lambda batch: batch | {"seen": 1})
    loader.set_epoch(3)
    batch = next(iter(loader))
    assert batch["view"].tolist() == [1] * 20
    assert batch["seen"] == 1


def test_the_number_of_batches_is_an_error() -> None:
    loader = StreamLoader(stream(), 20)
    with pytest.raises(ValueError, match="number of batches is unknown"):
        _ = loader.steps
    with pytest.raises(ValueError, match="a batch of 2 items cannot be cut into 3 ranks x 1"):
        StreamLoader(stream(), 2, world=3)
    with pytest.raises(ValueError, match=r"has 322 samples for rank 0\. Expected at least 400"):
        list(StreamLoader(stream(), 400))


def fails(shard: int) -> Iterator[dict[str, Any]]:
    yield from read(2)
    raise OSError("connection lost")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_cannot_be_read_is_an_error_without_traceback(workers: int) -> None:
    data = Stream(fails, 1, ["even", "odd"])
    message = "^shard 0 of the stream, after 90 samples: OSError: connection lost$"
    with pytest.raises(ValueError, match=message):
        list(StreamLoader(data, 10, workers=workers))
