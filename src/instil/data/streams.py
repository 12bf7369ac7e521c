"""Training samples without a known number, which are read in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.data.column_samples import LabelKind, column_samples
from instil.data.columns import Column, column_of
from instil.data.pictures import Size
from instil.data.samples import Facts, Rows, Samples

Row = Mapping[str, Any]
ReadShard = Callable[[int], Iterable[Row]]
"""Function that reads one shard: index of the shard -> its samples as dicts by batch key."""
BufferOption = Annotated[
    int, Doc("number of samples from which the next one is drawn at random; 1: the order of a file")
]
NUM_HEAD = 64
"""Number of samples that are read before training, for shapes and the kind of the labels."""
NEEDS_CLASSES = ("single", "sequence", "boxes")


class NoLengthError(ValueError):
    """Use of the number, the labels or a row of samples that are streamed."""

    def __init__(self, attribute: str):
        super().__init__(
            f"the training data are a stream, whose {attribute} is unknown. Expected data in "
            "memory. Use a source that is not streamed"
        )


class Stream(Samples):
    """Training samples that are read shard by shard, for ``StreamLoader``.

    A sample is a dict by batch key: numbers, arrays, lists, or encoded pictures. ``label`` is the
    label, and None a missing one. All samples have the keys of the first one.

    Sample ``i`` of shard ``s`` has the index ``i * num_shards + s``.

    Args:
        read: reads one shard. Every call must yield the same samples in the same order.
        num_shards: number of shards, which are read in parallel.
        classes: names of the classes; needed for the label kinds single, sequence and boxes.
        kind: kind of the labels; None: found by the type of the first ones.
        size: height and width of pictures; None for no resizing.
        task_name: task of the recipe.
        shuffle_buffer: number of samples from which the next one is drawn at random.
        fingerprint: text that changes with the data, such as names and sizes of the files.

    Attributes:
        head: the first samples.

    Raises:
        ValueError: for a stream without samples, wrong values, and missing classes.
    """

    def __init__(
        self,
        read: ReadShard,
        num_shards: int = 1,
        classes: Sequence[str] | None = None,
        kind: LabelKind | None = None,
        size: Size = None,
        task_name: str = "",
        shuffle_buffer: int = 1000,
        fingerprint: str = "",
    ):
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer: expected at least 1, got {shuffle_buffer}")
        self.read = read
        self.num_shards = num_shards
        self.size = size
        self.task_name = task_name
        self.shuffle_buffer = shuffle_buffer
        self.fingerprint = fingerprint
        self.source_split = "train"
        self.num_left_out: dict[int, int] = {}
        """First samples of each shard that belong to other splits."""
        rows = list(itertools.islice(self._all_rows(), NUM_HEAD))
        if not rows:
            raise ValueError("the stream has no samples. Expected at least one")
        self.keys = tuple(rows[0][2])
        self._class_names = classes
        self._label_kind = kind
        self._length_keys: frozenset[str] = frozenset()
        self.head = self._samples([self.decoded(index, row) for _, index, row in rows])
        first = self.head.inputs(torch.zeros(1, dtype=torch.int64))
        self._length_keys = frozenset(key for key in self.keys if f"{key}_length" in first)
        if classes is None and self._needs_classes():
            raise ValueError(
                f"classes: the classes of a stream with '{self.head.kind}' labels are not known "
                "before its end. Expected a list of names. Set classes"
            )
        self.classes = self.head.classes
        if "label" in self.keys:
            self._class_names = self.classes or None
            self._label_kind = self.head.kind  # type: ignore[assignment]
        self.augmentation = self.head.augmentation

    def __getattr__(self, name: str) -> Any:
        if name in ("label", "index", "origin", "has_label"):
            raise NoLengthError(name)
        raise AttributeError(name)

    def __len__(self) -> int:
        raise NoLengthError("number of samples")

    @property
    def kind(self) -> str:
        """Kind of the labels."""
        return self.head.kind

    @property
    def facts(self) -> Facts:
        """Arguments for builders of networks, from the first samples."""
        return self.head.facts

    def inputs(self, rows: Tensor) -> Batch:
        """Return the inputs of some of the first samples."""
        return self.head.inputs(rows)

    def __getitems__(self, rows: Rows) -> Batch:
        """Return some of the first samples."""
        return self.head.__getitems__(rows)

    def subset(self, rows: Rows) -> Stream:
        """Raise an error: rows of a stream cannot be chosen."""
        raise NoLengthError("number of samples")

    def shard(self, shard: int) -> Iterator[tuple[int, Row]]:
        """Yield the index and the values of each training sample of a shard.

        Raises:
            ValueError: for a shard that cannot be read, and a sample that is not a dict.
        """
        first = self.num_left_out.get(shard, 0)
        position = 0
        try:
            for row in self.read(shard):
                if not isinstance(row, Mapping):
                    raise ValueError(f"expected a dict by batch key, got {type(row).__name__}")
                if position >= first:
                    yield position * self.num_shards + shard, row
                position += 1
        except Exception as error:  # readers of the user may raise anything
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(
                f"shard {shard} of the stream, after {position} samples: {name}{error}"
            ) from error

    def decoded(self, index: int, row: Row) -> dict[str, Any]:
        """Return the values of a sample as arrays.

        Args:
            index: index of the sample, for messages.
            row: its values.

        Raises:
            ValueError: for a missing or a damaged value.
        """
        values: dict[str, Any] = {}
        for key in self.keys:
            value = row.get(key)
            if isinstance(value, Tensor):
                value = value.numpy()
            if value is None and key not in ("label", "box"):
                raise ValueError(f"sample {index} of the stream has no {key}. Expected a value")
            if value is not None and not isinstance(value, str):
                try:
                    value = column_of([value], key, self.size)[0]
                except ValueError as error:
                    raise ValueError(f"sample {index} of the stream: {key}: {error}") from error
            values[key] = value
        return values

    def batch(self, indices: Sequence[int], values: Sequence[Row]) -> Batch:
        """Return decoded samples as a batch.

        Args:
            indices: index of each sample.
            values: what ``decoded`` returned for each sample.

        Raises:
            ValueError: for values that do not fit the first samples.
        """
        try:
            samples = self._samples(values)
        except ValueError as error:
            raise ValueError(
                f"the samples {indices[0]} to {indices[-1]} of the stream: {error}"
            ) from error
        batch = samples.__getitems__(range(len(values)))
        return batch | {"index": torch.tensor(indices)}

    def take(self, count: int) -> tuple[Samples, Stream]:
        """Return the first samples in memory, and the stream of the others.

        Raises:
            ValueError: for fewer samples than that.
        """
        rows = list(itertools.islice(self._all_rows(), count))
        if len(rows) < count:
            raise ValueError(f"the stream has {len(rows)} samples, which are fewer than {count}")
        rest = Stream.__new__(type(self))
        rest.__dict__ |= self.__dict__
        rest.num_left_out = dict(self.num_left_out)
        for shard, _, _ in rows:
            rest.num_left_out[shard] = rest.num_left_out.get(shard, 0) + 1
        return self._samples([self.decoded(index, row) for _, index, row in rows]), rest

    def in_memory(self) -> Samples:
        """Return all samples in memory."""
        return self._samples([self.decoded(index, row) for _, index, row in self._all_rows()])

    def _all_rows(self) -> Iterator[tuple[int, int, Row]]:
        """Shard, index and values of all samples, shard by shard."""
        for shard in range(self.num_shards):
            for index, row in self.shard(shard):
                yield shard, index, row

    def _samples(self, values: Sequence[Row]) -> Samples:
        columns: dict[str, Column] = {}
        for key in self.keys:
            column = column_of([row[key] for row in values], key, self.size)
            # The sequences of one batch may have the same length by chance.
            columns[key] = list(column) if key in self._length_keys else column
        return column_samples(columns, self._class_names, self._label_kind, self.task_name)

    def _needs_classes(self) -> bool:
        if self.head.kind == "multi":
            # Lists of class indices do not show the number of classes, as one number each does.
            return self._label_kind == "multi"
        return self.head.kind in NEEDS_CLASSES
