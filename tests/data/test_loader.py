import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.augmentation import Augmentation
from instil.data.images import ArrayData, LazyData
from instil.data.loader import Loader


def numbers(count: int) -> ArrayData:
    return ArrayData(
        torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1), torch.zeros(count), ["all"]
    )


def order(loader: Loader) -> list[int]:
    return [row for batch in loader for row in batch["index"].tolist()]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 90),
    batch_size=st.integers(1, 40),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 4),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_the_order_does_not_depend_on_the_cut(count, batch_size, world, accumulate, epoch, shuffle):
    data, seed = numbers(count), 3
    if shuffle and min(batch_size, count) < world * accumulate:
        with pytest.raises(ValueError, match="cannot be cut"):
            Loader(data, batch_size, seed, 0, world, accumulate)
        return
    whole = Loader(data, batch_size, seed, shuffle=shuffle)
    whole.set_epoch(epoch)
    batches = [batch["index"].tolist() for batch in whole]
    seen = [row for batch in batches for row in batch]
    assert len(set(seen)) == len(seen)
    assert sorted(seen) == list(range(count)) or (
        shuffle and len(seen) == count // min(batch_size, count) * min(batch_size, count)
    )
    ranks = [
        Loader(data, batch_size, seed, rank, world, accumulate, shuffle) for rank in range(world)
    ]
    for loader in ranks:
        loader.set_epoch(epoch)
    pieces = [[batch["index"].tolist() for batch in loader] for loader in ranks]
    assert {len(actual) for actual in pieces} == {len(ranks[0])} == {len(batches) * accumulate}
    for index, batch in enumerate(batches):
        cut = [
            piece
            for actual in pieces
            for piece in actual[index * accumulate : (index + 1) * accumulate]
        ]
        assert [row for piece in cut for row in piece] == batch
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_an_epoch_is_a_function_of_seed_and_number():
    data = numbers(50)
    loader = Loader(data, 10, seed=1)
    zero = order(loader)
    assert order(loader) == zero
    loader.set_epoch(1)
    one = order(loader)
    assert one != zero
    assert order(Loader(data, 10, seed=2)) != zero
    torch.manual_seed(5)
    loader.set_epoch(0)
    assert order(loader) == zero
    assert sorted(zero) == sorted(one) == list(range(50))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(Loader(numbers(20), 5, augment=Augmentation(1, True)))
    assert torch.equal(torch.rand(3), expected)


def test_the_view_is_the_epoch():
    loader = Loader(numbers(20), 5)
    loader.set_epoch(7)
    assert all(batch["view"].tolist() == [7] * 5 for batch in loader)


def test_a_small_training_set_is_one_batch_and_evaluation_drops_nothing():
    assert [len(batch["index"]) for batch in Loader(numbers(7), 64)] == [7]
    assert [len(batch["index"]) for batch in Loader(numbers(7), 3)] == [3, 3]
    assert [batch["index"].tolist() for batch in Loader(numbers(7), 3, shuffle=False)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]


def read(row: int):
    return torch.full((2, 2), row, dtype=torch.uint8).numpy()


@pytest.mark.slow
def test_workers_give_the_same_batches():
    data = LazyData(read, torch.zeros(20), ["all"])
    here, there = Loader(data, 6, 1, accumulate=2), Loader(data, 6, 1, accumulate=2, workers=2)
    for epoch in (0, 1):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        for actual, expected in zip(here, there, strict=True):
            assert actual.keys() == expected.keys()
            assert all(torch.equal(actual[key], expected[key]) for key in actual)


def test_a_batch_costs_little():
    loader = Loader(numbers(6400), 64)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        batches = sum(1 for _ in loader)
        times.append((time.perf_counter() - start) / batches)
    assert min(times) < 200e-6  # about 20 microseconds on an idle core


@pytest.mark.parametrize(
    "arguments", [{"rank": 2, "world": 2}, {"accumulate": 0}, {"batch_size": 0}]
)
def test_impossible_cuts_are_refused(arguments):
    with pytest.raises(ValueError, match="cannot load"):
        Loader(numbers(8), **({"batch_size": 4} | arguments))


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Loader(numbers(0), 4)
