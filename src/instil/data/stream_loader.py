"""Micro-batches of a stream, in an order that depends on seed, epoch and number of ranks."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from instil.core import Batch
from instil.data.streams import NoLengthError, Row, Stream

LANES = 8
"""Largest number of shards that a rank reads at the same time."""
CHUNK = 16
"""Number of samples that are read from one shard before the next one."""
Chunk = list[tuple[int, dict[str, Any]]]
"""Index and values of samples; an empty one ends a lane."""


class StreamLoader:
    """Iterable over the micro-batches of one pass over a stream (``set_epoch``) for one rank.

    The shards are read in a random order, up to ``LANES`` at the same time, and their samples go
    through a shuffle buffer. The order depends on ``seed`` and epoch, and on the number of ranks,
    but not on ``workers``. If the number of shards is a multiple of ``world``, each rank reads
    shards of its own. Otherwise it reads all shards and keeps every ``world``-th sample.

    ``view`` of a batch is the epoch, modulo ``views`` if this is set. An incomplete last batch is
    left out.

    Args:
        stream: samples to load.
        batch_size: samples per global batch.
        seed: seed of the order.
        rank: rank of this process.
        world: number of processes.
        accumulate: micro-batches per rank and global batch.
        workers: number of processes that read ahead, each shards of its own.
        augment: function applied to each micro-batch.
        views: number of different views; None for a new view in every epoch.

    Raises:
        ValueError: for a batch that has fewer samples than micro-batches.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        workers: int = 0,
        augment: Callable[[Batch], Batch] | None = None,
        views: int | None = None,
    ):
        if batch_size < world * accumulate:
            raise ValueError(
                f"a batch of {batch_size} items cannot be cut into {world} ranks x {accumulate} "
                "micro-batches"
            )
        self.stream = stream
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.accumulate = accumulate
        self.workers = workers
        self.augment = augment
        self.views = views
        self.epoch = 0

    @property
    def steps(self) -> int:
        """Raise an error: the number of batches of a pass is unknown."""
        raise NoLengthError("number of batches")

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.arange(self.batch_size).tensor_split(self.world * self.accumulate)
        start = self.rank * self.accumulate
        sizes = [len(part) for part in parts[start : start + self.accumulate]]
        samples = self._samples()
        num_batches = 0
        while len(items := list(itertools.islice(samples, sum(sizes)))) == sum(sizes):
            first = 0
            for size in sizes:
                yield self._batch(items[first : first + size])
                first += size
            num_batches += 1
        if not num_batches:
            raise ValueError(
                f"batch_size: a pass over the stream has {len(items)} samples for rank "
                f"{self.rank}. Expected at least {sum(sizes)}. Use a smaller batch_size"
            )

    def _batch(self, items: Chunk) -> Batch:
        batch = self.stream.batch([index for index, _ in items], [values for _, values in items])
        view = self.epoch if self.views is None else self.epoch % self.views
        batch["view"] = torch.full_like(batch["index"], view)
        return self.augment(batch) if self.augment else batch

    def _samples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Samples of this rank: chunks of all lanes in turn."""
        reader = _Lanes(self.stream, self.seed, self.epoch, self.rank, self.world)
        lanes = list(range(min(LANES, len(reader.shards))))
        num_workers = min(self.workers, len(lanes))
        # Each worker reads the chunks of its lanes in the order in which they are used here.
        if num_workers:
            parts = [_read_ahead(reader, lanes[w::num_workers]) for w in range(num_workers)]
        else:
            parts = [reader.chunks(lanes)]
        source = {lane: parts[lane % len(parts)] for lane in lanes}
        while lanes:
            for lane in list(lanes):
                chunk = next(source[lane])
                if isinstance(chunk, ValueError):
                    raise chunk
                if not chunk:
                    lanes.remove(lane)
                yield from chunk


class _Lanes:
    """Reader of the shards of one rank and epoch; lane ``l`` reads every ``num_lanes``-th one."""

    def __init__(self, stream: Stream, seed: int, epoch: int, rank: int, world: int):
        self.stream = stream
        self.key = f"{seed}/{epoch}"
        order = list(range(stream.num_shards))
        self.generator("shards").shuffle(order)
        self.has_own_shards = len(order) % world == 0
        self.shards = order[rank::world] if self.has_own_shards else order
        self.rank = rank
        self.world = world

    def generator(self, name: str) -> random.Random:
        """Generator of a named stream of random numbers."""
        digest = hashlib.sha256(f"data.stream.{name}/{self.key}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "little"))

    def chunks(self, lanes: Sequence[int]) -> Iterator[Chunk | ValueError]:
        """Yield the chunks of lanes in turn; an empty one at the end of each lane."""
        readers = {lane: self._lane(lane) for lane in lanes}
        try:
            while readers:
                for lane, reader in list(readers.items()):
                    rows = list(itertools.islice(reader, CHUNK))
                    if not rows:
                        del readers[lane]
                    yield [(index, self.stream.decoded(index, row)) for index, row in rows]
        except ValueError as error:
            # A DataLoader would raise it with the traceback of the worker in its message.
            yield error

    def _lane(self, lane: int) -> Iterator[tuple[int, Row]]:
        """Samples of a lane, shuffled."""
        num_lanes = min(LANES, len(self.shards))
        size = max(1, self.stream.shuffle_buffer // num_lanes)
        generator = self.generator(f"buffer.{lane}.{self.rank}")
        buffer: list[tuple[int, Row]] = []
        for shard in self.shards[lane::num_lanes]:
            for sample in self._own_samples(shard):
                if len(buffer) < size:
                    buffer.append(sample)
                    continue
                position = generator.randrange(size)
                yield buffer[position]
                buffer[position] = sample
        if size > 1:
            generator.shuffle(buffer)
        yield from buffer

    def _own_samples(self, shard: int) -> Iterator[tuple[int, Row]]:
        """Samples of a shard that this rank reads."""
        samples = self.stream.shard(shard)
        if self.has_own_shards:
            return samples
        return itertools.islice(samples, self.rank, None, self.world)


class _WorkerLanes(IterableDataset[Any]):
    """Lanes that a worker process reads."""

    def __init__(self, reader: _Lanes, lanes: Sequence[int]):
        self.reader = reader
        self.lanes = lanes

    def __iter__(self) -> Iterator[Chunk | ValueError]:
        return self.reader.chunks(self.lanes)


def _read_ahead(reader: _Lanes, lanes: Sequence[int]) -> Iterator[Chunk | ValueError]:
    """Chunks of lanes, read by one process."""
    loader: DataLoader[Any] = DataLoader(
        _WorkerLanes(reader, lanes),
        batch_size=None,
        collate_fn=_identity,
        num_workers=1,
        prefetch_factor=4,
        # Without a generator of its own, starting the process draws from the global one.
        generator=torch.Generator(),
    )
    return iter(loader)


def _identity(chunk: Any) -> Any:
    return chunk
