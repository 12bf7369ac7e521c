"""Division of the rows of a store among processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instil.store.manifest import StoreSection


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one shard.

    Attributes:
        file: file name of the shard.
        view: view of the samples.
        start: first row in the section.
        end: row after the last one.
    """

    file: str
    view: int
    start: int
    end: int


def shards_of(name: str, section: StoreSection) -> Iterator[Part]:
    """Yield all shards of a section, in the order of views and rows.

    Args:
        name: name of the section.
        section: description of the section.
    """
    for view in range(section.views):
        for start in range(0, section.count, section.rows):
            end = min(start + section.rows, section.count)
            yield Part(section.shard(name, view, start), view, start, end)


def divide(shards: Sequence[Part], batch_size: int, num_shares: int) -> list[list[Part]]:
    """Divide shards into shares whose numbers of batches differ by one at most.

    No batch is divided: it has the rows that it has in one process, and so the same outputs.

    Args:
        shards: the shards.
        batch_size: number of rows of a batch; a batch never has rows of two shards.
        num_shares: number of shares.

    Returns:
        The parts of shards in each share.
    """
    batches: list[Part] = []
    for shard in shards:
        for start in range(shard.start, shard.end, batch_size):
            end = min(start + batch_size, shard.end)
            batches.append(dataclasses.replace(shard, start=start, end=end))
    # Rounded up, so that the first process has a batch if there is one.
    ends = [-(-share * len(batches) // num_shares) for share in range(num_shares + 1)]
    return [_joined(batches[ends[share] : ends[share + 1]]) for share in range(num_shares)]


def _joined(batches: Sequence[Part]) -> list[Part]:
    """Join the consecutive batches of each shard."""
    parts: list[Part] = []
    for batch in batches:
        if parts and parts[-1].file == batch.file:
            batch = dataclasses.replace(parts.pop(), end=batch.end)
        parts.append(batch)
    return parts
