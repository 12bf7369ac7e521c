"""Micro-batches of one rank and epoch, decided only by seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from instil.core import Batch
from instil.data.samplers import Sampler
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples


class Loader:
    """Iterable over the micro-batches of one epoch (``set_epoch``) for one rank.

    Global batch ``s`` is the ``s``-th batch of the epoch's ``sampler``. It is cut into ``world *
    accumulate`` consecutive micro-batches of nearly equal size. Rank ``r`` gets the ``accumulate``
    micro-batches from ``r * accumulate`` on. The global batch does not depend on the cut.

    ``view`` of a batch is the epoch, modulo ``views`` if this is set. If a sampler returns several
    versions of a sample, each version has a view of its own.

    Args:
        dataset: samples to load.
        batch_size: samples per global batch.
        seed: seed of the sampler, with the epoch.
        rank: rank of this process.
        world: number of processes.
        accumulate: micro-batches per rank and global batch.
        shuffle: whether to draw batches by ``sampler``; False for all samples in order.
        workers: number of processes that read ahead; data in memory needs none.
        augment: function applied to each micro-batch.
        views: number of different views; None for a new view in every epoch.
        sampler: composition of the batches of an epoch.

    Raises:
        ValueError: for empty data, or a training batch that has fewer items than micro-batches.
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        shuffle: bool = True,
        workers: int = 0,
        augment: Callable[[Batch], Batch] | None = None,
        views: int | None = None,
        sampler: Sampler = shuffled,
    ):
        if not len(dataset):
            raise ValueError("the data set is empty")
        if not 0 <= rank < world or accumulate < 1 or batch_size < 1:
            raise ValueError(
                f"cannot load: rank {rank} of {world}, accumulate {accumulate}, batch_size "
                f"{batch_size}. Expected 0 <= rank < world, and 1 or more of the others"
            )
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.rank = rank
        self.world = world
        self.accumulate = accumulate
        self.shuffle = shuffle
        self.workers = workers
        self.augment = augment
        self.views = views
        self.sampler = sampler
        self.epoch = 0
        self.steps = -(-len(dataset) // self.batch_size)
        """Global batches per epoch."""
        if shuffle:
            self.steps, width = self._draw(0)[0].shape
            if width < world * accumulate:
                raise ValueError(
                    f"a batch of {width} items cannot be cut into {world} ranks x {accumulate} "
                    "micro-batches"
                )
        self._requests = _Requests()
        self._processes: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        """Micro-batches per epoch, the same on every rank."""
        return self.steps * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def micro_batch_indices(self) -> Iterator[Tensor]:
        """Yield the rows of this rank's micro-batches.

        In evaluation a last batch with fewer items than micro-batches yields empty ones.
        """
        if self.shuffle:
            return self._cut(self._draw(self.epoch)[0])
        return self._cut(torch.split(torch.arange(len(self.dataset)), self.batch_size))

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Rows and versions of an epoch, drawn by a generator of its own."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return self.sampler(self.dataset, self.batch_size, generator)

    def _cut(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """This rank's micro-batches of every global batch."""
        start = self.rank * self.accumulate
        for batch in batches:
            parts = batch.tensor_split(self.world * self.accumulate)
            yield from parts[start : start + self.accumulate]

    def __iter__(self) -> Iterator[Batch]:
        for batch, view in zip(self._batches(), self._views(), strict=True):
            # A data set may add items to the requested rows, such as the neighbours of a node.
            num_added = len(batch["index"]) - len(view)
            view = torch.cat([view, view[:1].expand(num_added)])
            batch["view"] = view if self.views is None else view % self.views
            yield self.augment(batch) if self.augment else batch

    def _views(self) -> Iterator[Tensor]:
        """Views of each micro-batch: consecutive numbers by epoch, and by version in an epoch."""
        if not self.shuffle:
            return (torch.full_like(rows, self.epoch) for rows in self.micro_batch_indices())
        version = self._draw(self.epoch)[1]
        return self._cut(self.epoch * (int(version.max()) + 1) + version)

    def _batches(self) -> Iterator[Batch]:
        if not self.workers:
            return map(self.dataset.__getitems__, self.micro_batch_indices())
        self._requests.rows = list(self.micro_batch_indices())
        if self._processes is None:
            self._processes = DataLoader(
                _ErrorAsValue(self.dataset),  # type: ignore[arg-type]
                batch_sampler=self._requests,  # type: ignore[arg-type]
                collate_fn=_identity,
                num_workers=self.workers,
                persistent_workers=True,
            )
        return map(_unwrap, self._processes)


class Repeated:
    """Loader of a small data set in epochs of ``steps`` global batches.

    Passes over the data follow one another without a gap, also across the ends of epochs.

    Args:
        loader: loader of the small data set.
        steps: global batches per epoch.
    """

    def __init__(self, loader: Loader, steps: int):
        self.loader = loader
        self.steps = steps
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps * self.loader.accumulate

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        each = len(self.loader)
        start = self.epoch * len(self)
        end = start + len(self)
        for turn in range(start // each, -(-end // each)):
            self.loader.set_epoch(turn)
            first = max(0, start - turn * each)
            yield from islice(self.loader, first, min(each, end - turn * each))


@dataclass(frozen=True)
class _ErrorAsValue:
    """Data set that returns errors of bad data.

    A ``DataLoader`` would raise an error of a worker with the traceback in its message.
    """

    dataset: Samples

    def __getitems__(self, rows: Tensor) -> Batch | ValueError:
        try:
            return self.dataset.__getitems__(rows)
        except ValueError as error:
            return error


def _unwrap(result: Batch | ValueError) -> Batch:
    """The batch; raises an error that a worker returned."""
    if isinstance(result, ValueError):
        raise result
    return result


class _Requests:
    """Rows of each micro-batch of the current epoch, as the batch sampler of the workers.

    It has no reference to the loader: a cycle would delay the end of the workers by their timeout
    of 5 seconds.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.rows)


def _identity(batch: Any) -> Any:
    return batch
