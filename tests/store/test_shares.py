"""Division of shards among processes."""

from __future__ import annotations

import pytest

from instil.store.manifest import StoreSection
from instil.store.shares import Part, divide, shards_of


def section(count: int, rows: int, views: int = 1) -> StoreSection:
    return StoreSection(index="i", count=count, views=views, rows=rows, outputs={})


def test_shards_cover_the_rows_of_all_views() -> None:
    shards = list(shards_of("train", section(count=7, rows=3, views=2)))
    assert [(shard.view, shard.start, shard.end) for shard in shards] == [
        (0, 0, 3),
        (0, 3, 6),
        (0, 6, 7),
        (1, 0, 3),
        (1, 3, 6),
        (1, 6, 7),
    ]
    assert len({shard.file for shard in shards}) == len(shards)


@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
@pytest.mark.parametrize(("count", "rows", "batch_size"), [(101, 40, 8), (5, 5, 4), (9, 3, 7)])
def test_shares_have_whole_batches_of_nearly_equal_number(
    num_shares: int, count: int, rows: int, batch_size: int
) -> None:
    shards = list(shards_of("train", section(count, rows)))
    shares = divide(shards, batch_size, num_shares)
    assert len(shares) == num_shares
    covered: list[int] = []
    numbers_of_batches = []
    for share in shares:
        batches = 0
        for part in share:
            covered += range(part.start, part.end)
            assert part.start % rows % batch_size == 0
            batches += -(-(part.end - part.start) // batch_size)
        numbers_of_batches.append(batches)
    assert covered == list(range(count))
    assert max(numbers_of_batches) - min(numbers_of_batches) <= 1


def test_consecutive_batches_of_a_shard_are_one_part() -> None:
    shards = [Part("a", 0, 0, 10), Part("b", 0, 10, 14)]
    assert divide(shards, 4, 1) == [shards]
    assert divide(shards, 4, 2) == [[Part("a", 0, 0, 8)], [Part("a", 0, 8, 10), shards[1]]]
