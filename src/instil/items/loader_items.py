"""Items of a user's loader as batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from instil.items.batch import Batch


class OneShotLoader:
    """Iterable over an iterator that can be read only once, such as a generator.

    A first look at a loader reads its first batch and stops. The first batch is therefore kept
    until the second one is read, so that no look drops it.

    Args:
        iterator: yields batches.

    Example:
        >>> loader = OneShotLoader(iter("abc"))
        >>> next(iter(loader)), list(loader), list(loader)
        ('a', ['a', 'b', 'c'], [])
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._kept: list[Any] = []
        self._keeps_all = False

    def __iter__(self) -> Iterator[Any]:
        if not self._kept:
            self._kept.extend(itertools.islice(self._iterator, 1))
        yield from list(self._kept)
        if not self._keeps_all:
            self._kept.clear()
        for item in self._iterator:
            if self._keeps_all:
                self._kept.append(item)
            yield item

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Keep all batches that are read inside of the context for the next iteration."""
        self._keeps_all = True
        try:
            yield
        finally:
            self._keeps_all = False


def as_loader(loader: Iterable[Any]) -> Iterable[Any]:
    """Return a loader of batches whose first batch may be looked at.

    Args:
        loader: a user's loader.

    Raises:
        ValueError: for a data set of samples and for a tensor.
    """
    if _is_labelled_table(loader):
        raise ValueError(
            "loader: a tuple of samples and labels. Expected an iterable of batches. "
            "Use DataLoader(TensorDataset(samples, labels), batch_size=64)"
        )
    is_dataset = isinstance(loader, Dataset) and not isinstance(loader, IterableDataset)
    if is_dataset or isinstance(loader, Tensor):
        raise ValueError(
            f"loader: a {type(loader).__name__} yields samples. Expected an iterable of batches. "
            "Use DataLoader(dataset, batch_size=64)"
        )
    if isinstance(loader, Iterator) and not isinstance(loader, Sized):
        return OneShotLoader(loader)
    return loader


def _is_labelled_table(loader: Any) -> bool:
    """Whether a tuple or list has two tensors, the second with one label per row of the first."""
    if not isinstance(loader, (tuple, list)) or len(loader) != 2:
        return False
    if not all(isinstance(part, Tensor) for part in loader):
        return False
    samples, labels = loader
    is_label = labels.ndim == 1 and not labels.is_floating_point()
    return is_label and samples.ndim > 1 and len(samples) == len(labels)


def named_batch(item: Any, names: Sequence[str]) -> Batch:
    """Return an item of a loader as a dict.

    Args:
        item: a mapping, a tensor, a tuple whose values ``names`` names in order, or a named tuple
            with these names.
        names: names of the values of a tuple.

    Raises:
        ValueError: for a tuple with more values than names, another type, NumPy arrays, and
            lists of numbers.
    """
    batch = _as_dict(item, names)
    for key, value in batch.items():
        kind = _not_a_tensor(value)
        # Lists under other keys may be information of the user that no loss reads.
        if kind.startswith("NumPy") or (kind and key in (*names, "label", "index", "valid")):
            raise ValueError(
                f"loader: '{key}' is a {kind}. Expected a tensor. Use torch.as_tensor, or a "
                "DataLoader, which converts arrays and numbers"
            )
    return batch


def _not_a_tensor(value: Any) -> str:
    """Kind of a value that should be a tensor; empty for other values, such as a list of texts."""
    if type(value).__module__ == "numpy":
        return f"NumPy {type(value).__name__}"
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (int, float)):
        return f"{type(value).__name__} of numbers"
    return ""


def _as_dict(item: Any, names: Sequence[str]) -> Batch:
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, Tensor):
        return {names[0]: item}
    if not isinstance(item, (tuple, list)):
        raise ValueError(
            f"loader: a batch is a {type(item).__name__}. Expected a dict, a tensor, or a tuple of "
            f"{', '.join(names)}"
        )
    fields: tuple[str, ...] = getattr(item, "_fields", ())
    if names[0] in fields:
        return dict(zip(fields, item, strict=True))
    if len(item) > len(names):
        raise ValueError(
            f"loader: a batch has {len(item)} values. Expected a dict, or a tuple of {len(names)} "
            f"({', '.join(names)}). Name all values, for example "
            f"names={(*names, 'index')[: len(item)]}"
        )
    return dict(zip(names, item, strict=False))
