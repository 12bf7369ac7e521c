"""Base class of data sets: labelled samples that return whole batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from instil.core import UNLABELLED, Batch

Rows = Tensor | Sequence[int]
Facts = dict[str, Any]
"""Properties of the data that builders of networks need, as plain numbers: ``classes``,
``channels``, ``size``, ``vocabulary``, ``length``, ``features``, ..."""


class Samples:
    """Base class of data sets; ``data.__getitems__(rows)`` returns the batch of these rows.

    Args:
        label: class indices (N,), or float (N, C) for several classes; -100 for no label.
        classes: class names.
        index: (N,), int64, identity of each sample, which a subset keeps; None for 0 to N - 1.

    Attributes:
        origin: (N,), row of each sample in the source, which a subset keeps.
        source_split: split of the source that has this row.
        noun: name of one sample in messages.
        augmentation: class that changes a training batch, with ``seed`` and the options of
            ``data.augment`` as parameters; None for none. Draws depend on ``seed``, ``index`` and
            ``view`` only.
        encode_texts: function from N texts to the text inputs of a batch; None without texts.

    Raises:
        ValueError: for labels that fit neither the samples nor the classes.
    """

    noun: ClassVar[str] = "sample"
    augmentation: Callable[..., Callable[[Batch], Batch]] | None = None
    encode_texts: Callable[[Sequence[str]], Batch] | None = None

    def __init__(self, label: Tensor, classes: Sequence[str], index: Tensor | None = None):
        self.classes = tuple(classes)
        self.index = torch.arange(len(label)) if index is None else index
        self.label = self._checked(label)
        self._view = torch.zeros(len(label), dtype=torch.int64)
        self.origin = torch.arange(len(label))
        self.source_split = "train"

    @property
    def facts(self) -> Facts:
        """Arguments for builders of networks, by the names of their parameters."""
        raise NotImplementedError

    def inputs(self, rows: Tensor) -> Batch:
        """Return the inputs of a network for these rows, by batch key.

        The first entry is the one with respect to which networks are differentiated.
        """
        raise NotImplementedError

    def _take(self, rows: Tensor) -> None:
        """Keep only the data of these rows."""
        raise NotImplementedError

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return all rows in a random order; batches are consecutive parts of it."""
        return torch.randperm(len(self), generator=generator)

    def __len__(self) -> int:
        return len(self.label)

    def __getitems__(self, rows: Rows) -> Batch:
        """Return the inputs, ``label``, ``index`` and ``view`` (0 until the loader sets it)."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return self.inputs(rows) | {
            "label": self.label[rows],
            "index": self.index[rows],
            "view": self._view[: len(rows)],
        }

    def __getitem__(self, row: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([row]).items()}

    @property
    def kind(self) -> str:
        """Kind of label, one of the kinds that a task declares.

        single: one class per item; multi: any number of classes; binary: yes or no, label (N, 1).
        ``RealData`` has real, and ``instil.data.label_kinds`` none, sequence, boxes and graded.
        """
        if not self.label.is_floating_point():
            return "single"
        return "binary" if self.label.shape[1] == 1 else "multi"

    @property
    def has_label(self) -> Tensor:
        """(N,), bool, whether at least one item of a sample has a label."""
        is_labelled = self.label != UNLABELLED
        return is_labelled.flatten(1).any(1) if is_labelled.ndim > 1 else is_labelled

    @property
    def has_target(self) -> Tensor:
        """(N,), bool, whether predictions for a sample can be evaluated."""
        return self.has_label

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """Values of the samples that ``inputs`` does not return, for the digest of the data."""
        return (self.label,)

    def keep_labels(self, rows: Tensor) -> Self:
        """Return the same samples; only these rows keep their label, the others have -100."""
        label = torch.full_like(self.label, UNLABELLED)
        label[rows] = self.label[rows]
        return self.relabel(label)

    def subset(self, rows: Rows) -> Self:
        """Return these rows as a data set of their own; every sample keeps its index."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        part = copy.copy(self)
        part.label = self.label[rows]
        part.index = self.index[rows]
        part.origin = self.origin[rows]
        part._view = self._view[: len(rows)]
        part._take(rows)
        return part

    def relabel(self, label: Tensor) -> Self:
        """Return the same samples with other labels.

        Raises:
            ValueError: for labels that do not fit.
        """
        if len(label) != len(self):
            raise ValueError(f"{len(label)} labels for {len(self)} {self.noun}s")
        other = copy.copy(self)
        other.label = self._checked(label)
        return other

    def _checked(self, label: Tensor) -> Tensor:
        """Labels as int64 (N,) or float32 (N, C)."""
        if label.ndim == 1:
            return self._class_indices(label)
        if label.ndim != 2 or label.shape[1] != len(self.classes):
            several = f"(N, {len(self.classes)}) for several classes per {self.noun}"
            raise ValueError(f"labels: expected shape (N,), or {several}, not {tuple(label.shape)}")
        label = label.to(torch.float32)
        is_wrong = ~((label >= 0) & (label <= 1)) & (label != UNLABELLED)
        if is_wrong.any():
            row = int(is_wrong.any(1).nonzero()[0])
            raise ValueError(
                f"labels of shape (N, C): {self.noun} {row}: expected [0, 1], or -100 for none"
            )
        return label

    def _class_indices(self, label: Tensor) -> Tensor:
        """Labels of any shape with one class per item, as int64."""
        if label.is_floating_point() and not torch.equal(label, label.round()):
            raise ValueError("labels of shape (N,) are class numbers and must be whole")
        label = label.to(torch.int64)
        is_wrong = ((label < 0) | (label >= len(self.classes))) & (label != UNLABELLED)
        if is_wrong.any():
            position = is_wrong.nonzero()[0]
            value = int(label[tuple(position)])
            classes = f"{len(self.classes)} classes (0 to {len(self.classes) - 1}, or -100: none)"
            message = f"label {value} of {self.noun} {int(position[0])} is none of the {classes}"
            raise ValueError(message)
        return label


def labelled_rows(data: Samples) -> Tensor:
    """Return the rows of the samples that have a label for at least one of their items."""
    return data.has_label.nonzero().flatten()


class TensorData(Samples):
    """Samples in memory, one row per sample.

    Args:
        tensors: input tensors by batch key.
        label: float (N, C), or class indices (N, ...) with one class per item, such as a pixel.
        classes: class names.
        facts: properties of the data other than the number of classes.
        index: (N,), identity of each sample; None for 0 to N - 1.

    Raises:
        ValueError: for labels or tensors that do not fit together.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        label: Tensor,
        classes: Sequence[str],
        facts: Mapping[str, Any] | None = None,
        index: Tensor | None = None,
    ):
        for key, value in tensors.items():
            if len(value) != len(label):
                raise ValueError(f"{len(label)} labels for {len(value)} rows of '{key}'")
        self.tensors = dict(tensors)
        self._facts = dict(facts or {})
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), **self._facts}

    def inputs(self, rows: Tensor) -> Batch:
        return {key: value.index_select(0, rows) for key, value in self.tensors.items()}

    def _take(self, rows: Tensor) -> None:
        self.tensors = self.inputs(rows)

    def _checked(self, label: Tensor) -> Tensor:
        return super()._checked(label) if label.is_floating_point() else self._class_indices(label)


class RealData(TensorData):
    """Samples in memory with one real number for each output as label.

    ``label`` is float32 (N, D), -100 for a missing value; NaN is replaced by -100. ``classes`` are
    the names of the outputs.

    Raises:
        ValueError: for labels of another shape, or infinite ones.
    """

    @property
    def kind(self) -> str:
        """``real``."""
        return "real"

    def _checked(self, label: Tensor) -> Tensor:
        label = label.to(torch.float32)
        if label.ndim != 2 or label.shape[1] != len(self.classes):
            raise ValueError(
                f"real labels must have the shape (N, {len(self.classes)}), not "
                f"{tuple(label.shape)}"
            )
        label = label.nan_to_num(UNLABELLED, torch.inf, -torch.inf)
        if label.isinf().any():
            row = int(label.isinf().any(1).nonzero()[0])
            raise ValueError(f"the label of {self.noun} {row} is infinite")
        return label
