"""Composition of batches."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from instil.data import samplers
from instil.data.augmentation import Augmentation
from instil.data.images import ArrayData
from instil.data.loader import Loader, Repeated

# length_buckets needs rows of different lengths; its tests are those of the source chat.
NAMES = sorted(
    {path.stem for path in Path(samplers.__path__[0]).glob("[!_]*.py")} - {"length_buckets"}
)


def images(count: int = 50, classes: int = 4) -> ArrayData:
    label = torch.arange(count) % classes
    label[-1] = -100
    return ArrayData(torch.rand(count, 1, 6, 6), label, [str(one) for one in range(classes)])


def drawn(
    name: str, data: ArrayData, batch_size: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    return samplers.find(name)(data, batch_size, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [8, 9, 50])
def test_is_a_function_of_the_generator_and_gives_as_many_batches_each_time(
    name: str, batch_size: int
) -> None:
    rows, version = drawn(name, images(), batch_size)
    assert rows.shape == version.shape
    assert rows.shape[1] == (batch_size if name == "shuffled" else batch_size // 2 * 2)
    assert rows.dtype == version.dtype == torch.int64
    assert torch.equal(rows, drawn(name, images(), batch_size)[0])
    other = drawn(name, images(), batch_size, 1)[0]
    assert other.shape == rows.shape
    assert not torch.equal(other, rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_batch_and_its_views_do_not_depend_on_the_cut(name: str) -> None:
    data = images()

    def batches(
        rank: int, world: int, accumulate: int, workers: int = 0
    ) -> list[dict[str, torch.Tensor]]:
        loader = Loader(
            data,
            12,
            3,
            rank,
            world,
            accumulate,
            sampler=samplers.find(name),
            augment=Augmentation(2, seed=3),
            workers=workers,
        )
        loader.set_epoch(2)
        return list(loader)

    whole, ranks = batches(0, 1, 1), [batches(rank, 2, 2) for rank in range(2)]
    assert [len(part) for part in ranks] == [2 * len(whole)] * 2
    for index, batch in enumerate(whole):
        pieces = [piece for part in ranks for piece in part[2 * index : 2 * index + 2]]
        for key in ("index", "view", "image", "label"):
            assert torch.equal(torch.cat([piece[key] for piece in pieces]), batch[key]), key
    assert all(
        torch.equal(a["image"], b["image"])
        for a, b in zip(whole, batches(0, 1, 1, workers=1), strict=True)
    )


def test_class_pairs_hold_another_sample_of_the_class_in_the_second_half() -> None:
    data = images()
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(300):
        rows, version = drawn("class_pairs", data, 12, seed)
        first, second = rows.chunk(2, 1)
        assert first.unique().numel() == first.numel(), (
            "the first halves are an epoch without repetition"
        )
        assert torch.equal(data.label[first], data.label[second])
        alone = first == 49
        assert torch.equal(first == second, alone), (
            "only the one sample without a label has no partner but itself"
        )
        assert torch.equal(version, torch.cat([torch.zeros_like(first), torch.ones_like(first)], 1))
        counts.update(
            (int(a), int(b))
            for a, b in zip(first.flatten(), second.flatten(), strict=True)
            if a == 0
        )
    assert len(counts) == 12, "all others of a class are drawn"
    assert max(counts.values()) < 5 * min(counts.values())


def test_the_last_batch_comes_back_in_the_next_one_in_another_version() -> None:
    rows, version = drawn("last_batch", images(), 12)
    assert len(rows) == 50 // 6 - 1
    for before, now in pairwise(rows):
        assert torch.equal(before[6:], now[:6])
    assert torch.equal(version[:, :6], torch.ones(len(rows), 6, dtype=torch.int64))
    assert not version[:, 6:].any()
    loader = Loader(images(), 12, sampler=samplers.find("last_batch"), augment=Augmentation(2))
    one, two, *_ = loader
    assert torch.equal(one["index"][6:], two["index"][:6])
    assert not torch.equal(one["image"][6:], two["image"][:6])


def test_two_views_are_one_sample_in_two_versions() -> None:
    rows, version = drawn("two_views", images(), 12)
    assert torch.equal(rows[:, ::2], rows[:, 1::2])
    assert not version[:, ::2].any()
    assert version[:, 1::2].all()
    seen = set()
    loader = Loader(images(), 12, sampler=samplers.find("two_views"))
    for epoch in range(3):
        loader.set_epoch(epoch)
        pairs = {
            (int(i), int(v))
            for batch in loader
            for i, v in zip(batch["index"], batch["view"], strict=True)
        }
        assert not pairs & seen, "no version comes twice"
        seen |= pairs


def test_passes_over_a_small_set_go_on_from_epoch_to_epoch() -> None:
    loader = Repeated(Loader(images(), 12, sampler=samplers.find("last_batch")), 4)
    loader.set_epoch(1)
    assert [len(batch["index"]) for batch in loader] == [12] * 4


def test_data_that_cannot_be_sampled_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"unknown sampler 'class_pair'\. Did you mean class_pairs"
    ):
        samplers.find("class_pair")
    with pytest.raises(
        ValueError,
        match=(
            r"sampler two_views makes batches of two halves\. Expected batch_size at least 2, "
            r"got 1"
        ),
    ):
        drawn("two_views", images(), 1)
    several = ArrayData(torch.rand(4, 1, 2, 2), torch.ones(4, 3), ["a", "b", "c"])
    with pytest.raises(
        ValueError,
        match=r"sampler class_pairs needs one class per sample\. .*, got \(4, 3\)",
    ):
        drawn("class_pairs", several, 4)
    with pytest.raises(
        ValueError, match="a batch of 4 items cannot be cut into 3 ranks x 2 micro-batches"
    ):
        Loader(images(), 5, 0, 0, 3, 2, sampler=samplers.find("two_views"))
