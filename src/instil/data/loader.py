"""One rank's micro-batches of an epoch, which only seed and epoch decide."""

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
    """Yields the micro-batches of one epoch (``set_epoch``) for one rank.

    Global batch ``s`` is the ``s``-th that ``sampler`` makes of the epoch. It is cut into ``world * accumulate`` consecutive pieces of nearly equal
    size; rank ``r`` gets the ``accumulate`` pieces from ``r * accumulate`` on: the global batch does not depend on the cut.
    Without ``shuffle`` (evaluation) all items come, in order.
    ``view`` of each batch is the epoch, or what is left of it by ``views``; where a sampler brings a sample in several versions, each has a view
    of its own. ``workers`` read ahead, in processes; data in memory needs none.

    Raises ValueError for empty data, or a training batch that has fewer items than pieces.
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
                f"cannot load: rank {rank} of {world}, accumulate {accumulate}, batch_size {batch_size}"
            )
        self.dataset, self.batch_size, self.seed = dataset, min(batch_size, len(dataset)), seed
        self.rank, self.world, self.accumulate, self.shuffle = rank, world, accumulate, shuffle
        self.workers, self.augment, self.views, self.sampler, self.epoch = (
            workers,
            augment,
            views,
            sampler,
            0,
        )
        self.steps, width = (
            self._drawn(0)[0].shape
            if shuffle
            else (-(-len(dataset) // self.batch_size), self.batch_size)
        )
        """Global batches an epoch."""
        if shuffle and width < world * accumulate:
            raise ValueError(
                f"a batch of {width} items cannot be cut into {world} ranks x {accumulate} micro-batches"
            )
        self._asked = _Rows()
        self._processes: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        """Micro-batches an epoch, the same on every rank."""
        return self.steps * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration goes through."""
        self.epoch = epoch

    def micro_batch_indices(self) -> Iterator[Tensor]:
        """Rows of this rank's micro-batches; empty ones where a last batch has fewer items than pieces."""
        if self.shuffle:
            return self._cut(self._drawn(self.epoch)[0])
        return self._cut(torch.split(torch.arange(len(self.dataset)), self.batch_size))

    def _drawn(self, epoch: int) -> tuple[Tensor, Tensor]:
        return self.sampler(
            self.dataset,
            self.batch_size,
            torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63),
        )

    def _cut(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """This rank's pieces of every global batch."""
        for batch in batches:
            yield from batch.tensor_split(self.world * self.accumulate)[
                self.rank * self.accumulate : (self.rank + 1) * self.accumulate
            ]

    def __iter__(self) -> Iterator[Batch]:
        for batch, view in zip(self._batches(), self._views(), strict=True):
            more = len(batch["index"]) - len(
                view
            )  # what comes along with the rows asked for, such as the neighbours of a node
            view = torch.cat([view, view[:1].expand(more)])
            batch["view"] = view if self.views is None else view % self.views
            yield self.augment(batch) if self.augment else batch

    def _views(self) -> Iterator[Tensor]:
        """Epoch by epoch, and in an epoch version by version, another number."""
        if not self.shuffle:
            return (torch.full_like(piece, self.epoch) for piece in self.micro_batch_indices())
        version = self._drawn(self.epoch)[1]
        return self._cut(self.epoch * (int(version.max()) + 1) + version)

    def _batches(self) -> Iterator[Batch]:
        if not self.workers:
            return map(self.dataset.__getitems__, self.micro_batch_indices())
        self._asked.micro_batch_indices = list(self.micro_batch_indices())
        if self._processes is None:
            self._processes = DataLoader(
                _Told(self.dataset),  # type: ignore[arg-type]
                batch_sampler=self._asked,  # type: ignore[arg-type]
                collate_fn=_as_it_is,
                num_workers=self.workers,
                persistent_workers=True,
            )
        return map(_taken, self._processes)


class Repeated:
    """A loader of a small set as epochs of ``steps`` global batches: its passes follow one another, over the ends of epochs too."""

    def __init__(self, loader: Loader, steps: int):
        self.loader, self.steps, self.epoch = loader, steps, 0

    def __len__(self) -> int:
        return self.steps * self.loader.accumulate

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration goes through."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        each = len(self.loader)
        start, end = self.epoch * len(self), (self.epoch + 1) * len(self)
        for turn in range(start // each, -(-end // each)):
            self.loader.set_epoch(turn)
            yield from islice(
                self.loader, max(0, start - turn * each), min(each, end - turn * each)
            )


@dataclass(frozen=True)
class _Told:
    """Bad data are told as a value: raised in a process, its error would come with the traceback in its text."""

    dataset: Samples

    def __getitems__(self, rows: Tensor) -> Batch | ValueError:
        try:
            return self.dataset.__getitems__(rows)
        except ValueError as error:
            return error


def _taken(answer: Batch | ValueError) -> Batch:
    if isinstance(answer, ValueError):
        raise answer
    return answer


class _Rows:
    """What the processes are asked for, anew in every epoch; knows no loader, or they would outlive it by their timeout of 5 seconds."""

    def __init__(self) -> None:
        self.micro_batch_indices: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.micro_batch_indices)


def _as_it_is(batch: Any) -> Any:
    return batch
