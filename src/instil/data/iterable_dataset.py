"""Batches of an ``IterableDataset`` of torch, ``datasets`` or webdataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, TypeGuard

import torch
from torch.utils.data import DataLoader, IterableDataset

from instil.core import Batch
from instil.items.loader_items import named_batch


class IterableDatasetLoader:
    """Iterable over the batches of one pass over a dataset that yields samples.

    Batches without an ``index`` get one: the position of each sample in the pass. A data set of
    ``datasets`` is divided among the ranks and the workers by its shards; any other one must do
    that itself, as for a ``DataLoader``.

    Args:
        dataset: yields samples, as dicts or as tuples in the order of ``names``.
        names: names of the values of a tuple.
        batch_size: samples per batch of this rank.
        workers: number of processes that read ahead.
        rank: rank of this process.
        world: number of processes.
        drop_last: whether an incomplete last batch is left out.

    Raises:
        ValueError: for a batch of less than one sample, and, during an iteration, for a data set
            without a full batch.
    """

    def __init__(
        self,
        dataset: IterableDataset[Any],
        names: Sequence[str],
        batch_size: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if world > 1 and type(dataset).__module__.startswith("datasets."):
            from datasets.distributed import (  # type: ignore[import-untyped]
                split_dataset_by_node,
            )

            dataset = split_dataset_by_node(dataset, rank, world)
        self.dataset = dataset
        self.names = tuple(names)
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self._batches: DataLoader[Any] = DataLoader(
            dataset,
            batch_size,
            num_workers=workers,
            drop_last=drop_last,
            # Without a generator of its own, an iteration draws from the global one.
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, if the data set has epochs."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for item in self._batches:
            batch = named_batch(item, self.names)
            num_samples = len(next(iter(batch.values())))
            position = torch.arange(start, start + num_samples)
            yield {"index": position * self.world + self.rank} | batch
            start += num_samples
        if start == 0:
            raise ValueError(
                f"loader: the data set has no full batch. Expected at least "
                f"batch_size={self.batch_size} samples. Use a smaller batch_size"
            )


def yields_samples(loader: Any) -> TypeGuard[IterableDataset[Any]]:
    """Return whether a loader is a data set of samples, not of batches.

    The loader of webdataset is an ``IterableDataset`` too, whose first stage makes batches.

    Args:
        loader: data set or loader.
    """
    stages = getattr(loader, "pipeline", None)
    is_web_loader = isinstance(stages, list) and bool(stages) and isinstance(stages[0], DataLoader)
    return isinstance(loader, IterableDataset) and not is_web_loader


def check_has_length(loader: Any) -> None:
    """Check that a loader has a number of batches.

    Args:
        loader: loader of batches, or data set of samples.

    Raises:
        ValueError: if it has none, so that epochs have no length.
    """
    if yields_samples(loader) or not isinstance(loader, Sized):
        raise ValueError(
            "epochs: the loader has no length. Expected the length of the training in optimizer "
            "steps. Set steps, for example steps=1000"
        )
