"""Samples of Parquet files that are read by row group when they are needed."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.augmentation import Augmentation
from instil.data.column_samples import LabelKind, column_samples, facts_of, input_tensors
from instil.data.columns import Column, column_of
from instil.data.picture_columns import picture_size
from instil.data.pictures import Size
from instil.data.samples import Facts, Rows, Samples
from instil.data.tables import check_columns, import_parquet, read_parquet

WINDOW = 4
"""Number of row groups whose rows are shuffled together."""
# A batch at the border of two windows has rows of both.
NUM_CACHED = 2 * WINDOW
"""Largest number of row groups in memory per process."""
LENGTH_KINDS = ("sequence", "boxes")
"""Kinds of labels whose batches have the length of each label, or boxes, under further keys."""


class RowGroups(Samples):
    """Rows of Parquet files; only the labels, and a few row groups, are in memory.

    An epoch visits the row groups in random order, ``WINDOW`` at a time, and their rows in
    random order.

    Args:
        paths: files.
        columns: column of each batch key.
        classes: names of the classes; None: found in the labels.
        kind: kind of the labels; None: found by their type.
        size: height and width of pictures; None for no resizing.
        task_name: task of the recipe.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and wrong labels.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        columns: Mapping[str, str],
        classes: Sequence[str] | None,
        kind: LabelKind | None,
        size: Size,
        task_name: str,
    ):
        in_memory = {key: name for key, name in columns.items() if key in ("label", "box")}
        self.columns = {key: name for key, name in columns.items() if key not in in_memory}
        self.size = size
        self.groups: list[tuple[Path, int]] = []
        starts = [0]
        for path in paths:
            for index, num_rows in enumerate(_group_sizes(path, list(columns.values()))):
                self.groups.append((path, index))
                starts.append(starts[-1] + num_rows)
        self.starts = torch.tensor(starts)
        self.rows = torch.arange(starts[-1])
        self._cache: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        # The sequences of one batch may have the same length by chance.
        self._ragged: set[str] = set()
        if self.groups:
            first = _read_group(*self.groups[0], list(self.columns.values()))
            self._ragged = {key for key, name in self.columns.items() if _is_ragged(first[name])}
        labels: dict[str, Any] = {"row": self.rows.numpy()}
        for key, name in in_memory.items():
            values: list[Any] = []
            for path in paths:
                values += read_parquet(path, [name])[name]
            labels[key] = column_of(values, key)
        labelled = column_samples(labels, classes, kind, task_name)
        self._kind = labelled.kind
        self._labels = labelled if labelled.kind in LENGTH_KINDS else None
        if "image" in self.columns:
            self.augmentation = labelled.augmentation or Augmentation
        super().__init__(labelled.label, labelled.classes)

    @property
    def kind(self) -> str:
        """Kind of the labels."""
        return self._kind

    @property
    def facts(self) -> Facts:
        """Properties of the first sample, and the number of classes."""
        facts = facts_of(self.inputs(torch.zeros(1, dtype=torch.int64)))
        return {"classes": len(self.classes), **facts} if self.classes else facts

    @property
    def has_label(self) -> Tensor:
        """(N,), bool, whether a sample has a label."""
        return super().has_label if self._labels is None else self._labels.has_label

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """Labels of any kind."""
        return super().digest_values if self._labels is None else self._labels.digest_values

    def __getitems__(self, rows: Rows) -> Batch:
        """Return the batch of these rows, with the further keys of their kind of label."""
        batch = super().__getitems__(rows)
        if self._labels is None:
            return batch
        # The row is in place of the inputs, which are not in memory.
        labels = self._labels.__getitems__(rows)
        del labels["row"]
        return batch | labels | {"index": batch["index"]}

    def keep_labels(self, rows: Tensor) -> RowGroups:
        """Return the same samples; only these rows keep their label."""
        other = super().keep_labels(rows)
        if self._labels is not None:
            other._labels = self._labels.keep_labels(rows)
        return other

    def relabel(self, label: Tensor) -> RowGroups:
        """Return the same samples with other labels."""
        other = super().relabel(label)
        if self._labels is not None:
            other._labels = self._labels.relabel(label)
        return other

    def inputs(self, rows: Tensor) -> Batch:
        """Return the inputs of these rows.

        Raises:
            ValueError: for values that are missing, damaged or of different shapes.
        """
        whole = self.rows[rows]
        groups = self._group_of(whole)
        positions = (whole - self.starts[groups]).tolist()
        # Reading one group after the other keeps each in memory until all its rows are taken.
        order = groups.argsort(stable=True).tolist()
        values: dict[str, list[Any]] = {key: [None] * len(rows) for key in self.columns}
        for item in order:
            group = self._read(int(groups[item]))
            for key, name in self.columns.items():
                values[key][item] = group[name][positions[item]]
        path = self.groups[int(groups[0])][0] if len(groups) else Path()
        columns: dict[str, Column] = {}
        for key, name in self.columns.items():
            with _named_errors(path, name):
                column = column_of(values[key], key, self.size)
                columns[key] = list(column) if key in self._ragged else column
        size = picture_size(columns)
        inputs: dict[str, Tensor] = {}
        for key, name in self.columns.items():
            with _named_errors(path, name):
                inputs |= input_tensors(key, columns[key], size)
        return inputs

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return all rows in an order that reads every row group once."""
        groups = self._group_of(self.rows)
        order = torch.randperm(len(self.groups), generator=generator)
        window = torch.empty(len(self.groups), dtype=torch.int64)
        window[order] = torch.arange(len(self.groups)) // WINDOW
        mixed = torch.randperm(len(self), generator=generator)
        return mixed[window[groups[mixed]].argsort(stable=True)]

    def _group_of(self, rows: Tensor) -> Tensor:
        return torch.searchsorted(self.starts, rows, right=True) - 1

    def _read(self, index: int) -> dict[str, list[Any]]:
        """Columns of a row group; the least recently used group is dropped."""
        if index not in self._cache:
            path, group = self.groups[index]
            names = list(self.columns.values())
            self._cache[index] = _read_group(path, group, names)
            if len(self._cache) > NUM_CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(index)
        return self._cache[index]

    def _take(self, rows: Tensor) -> None:
        self.rows = self.rows[rows]
        if self._labels is not None:
            self._labels = self._labels.subset(rows)

    def _checked(self, label: Tensor) -> Tensor:
        return label


@contextlib.contextmanager
def _named_errors(path: Path, name: str) -> Iterator[None]:
    """Add file and column to errors about values."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: column '{name}': {error}") from error


def _is_ragged(values: Sequence[Any]) -> bool:
    """Whether values are sequences of different lengths."""
    return len({len(value) for value in values if isinstance(value, (list, tuple))}) > 1


def _group_sizes(path: Path, names: list[str]) -> list[int]:
    """Number of rows of each row group of a file that has all columns."""
    import pyarrow  # type: ignore[import-untyped]

    parquet = import_parquet()
    try:
        metadata = parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    check_columns(path, names, parquet.read_schema(path).names)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def _read_group(path: Path, group: int, names: list[str]) -> dict[str, list[Any]]:
    import pyarrow

    parquet = import_parquet()
    try:
        table = parquet.ParquetFile(path).read_row_group(group, columns=names)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: row group {group}: {error}") from error
    return {name: table[name].to_pylist() for name in names}
