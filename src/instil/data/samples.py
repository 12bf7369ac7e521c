"""Labelled samples that hand out ready batches, and what networks must know of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from instil.core import UNLABELLED, Batch

Rows = Tensor | Sequence[int]
Facts = dict[str, Any]
"""What a network must know of the data: ``classes``, ``channels``, ``size``, ``vocabulary``, ``length``, ``features`` ...; plain numbers."""


class Samples:
    """Samples with labels: ``data.__getitems__(rows)`` is the batch of these rows.

    ``label`` is int64 (N,) for one class a sample, float32 (N, C) for several, -100 where there is none; ``index`` is the sample's identity,
    which a subset keeps. Raises ValueError for labels that fit neither the samples nor the classes.
    """

    noun: ClassVar[str] = "sample"

    def __init__(self, label: Tensor, classes: Sequence[str], index: Tensor | None = None):
        self.classes = tuple(classes)
        self.index = torch.arange(len(label)) if index is None else index
        self.label = self._checked(label)
        self._view = torch.zeros(len(label), dtype=torch.int64)

    @property
    def facts(self) -> Facts:
        """What builders of networks are told, by the names of their parameters."""
        raise NotImplementedError

    def inputs(self, rows: Tensor) -> Batch:
        """What a network reads of these rows, by the key of the batch; the first is what it is differentiated by."""
        raise NotImplementedError

    def _take(self, rows: Tensor) -> None:
        """Keep only these samples."""
        raise NotImplementedError

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """All rows in the random order of one epoch, of which batches are consecutive runs."""
        return torch.randperm(len(self), generator=generator)

    def __len__(self) -> int:
        return len(self.label)

    def __getitems__(self, rows: Rows) -> Batch:
        """The inputs, ``label``, ``index`` and ``view`` (0; the loader sets it)."""
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
        """``single`` (one class an item), ``multi`` (any number of classes) or ``binary`` (yes or no: label (N, 1))."""
        return (
            "single"
            if not self.label.is_floating_point()
            else "binary"
            if self.label.shape[1] == 1
            else "multi"
        )

    def subset(self, rows: Rows) -> Self:
        """These rows as a data set of their own; every sample keeps its index."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        part = copy.copy(self)
        part.label, part.index, part._view = (
            self.label[rows],
            self.index[rows],
            self._view[: len(rows)],
        )
        part._take(rows)
        return part

    def relabel(self, label: Tensor) -> Self:
        """The same samples with other labels."""
        if len(label) != len(self):
            raise ValueError(f"{len(label)} labels for {len(self)} {self.noun}s")
        other = copy.copy(self)
        other.label = self._checked(label)
        return other

    def _checked(self, label: Tensor) -> Tensor:
        """Labels as int64 (N,) or float32 (N, C)."""
        if label.ndim == 1:
            return self._class_numbers(label)
        if label.ndim != 2 or label.shape[1] != len(self.classes):
            several = f"(N, {len(self.classes)}) for several classes {_article(self.noun)}"
            raise ValueError(
                f"labels must have the shape (N,), or {several}, not {tuple(label.shape)}"
            )
        label = label.to(torch.float32)
        wrong = ~((label >= 0) & (label <= 1)) & (label != UNLABELLED)
        if wrong.any():
            row = int(wrong.any(1).nonzero()[0])
            raise ValueError(
                f"labels of shape (N, C) must lie in [0, 1] (or be -100: none); those of {self.noun} {row} do not"
            )
        return label

    def _class_numbers(self, label: Tensor) -> Tensor:
        """One class an item, in labels of any shape."""
        if label.is_floating_point() and not torch.equal(label, label.round()):
            raise ValueError("labels of shape (N,) are class numbers and must be whole")
        label = label.to(torch.int64)
        wrong = ((label < 0) | (label >= len(self.classes))) & (label != UNLABELLED)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            number = int(label[tuple(wrong.nonzero()[0])])
            known = f"{len(self.classes)} classes (0 to {len(self.classes) - 1}, or -100: none)"
            raise ValueError(f"label {number} of {self.noun} {row} is none of the {known}")
        return label


def labelled_rows(data: Samples) -> Tensor:
    """Rows of the samples that have a label for at least one of their items."""
    has_label = data.label != UNLABELLED
    if has_label.ndim > 1:
        has_label = has_label.flatten(1).any(1)
    return has_label.nonzero().flatten()


class TensorData(Samples):
    """Samples in memory: ``tensors`` by the key of the batch, each with one row a sample; ``facts`` beside the number of classes.

    Integer labels of shape (N, ...) hold one class an item, such as a pixel. Raises ValueError for labels or tensors that do not fit together.
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
        self.tensors, self._facts = dict(tensors), dict(facts or {})
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), **self._facts}

    def inputs(self, rows: Tensor) -> Batch:
        return {key: value.index_select(0, rows) for key, value in self.tensors.items()}

    def _take(self, rows: Tensor) -> None:
        self.tensors = self.inputs(rows)

    def _checked(self, label: Tensor) -> Tensor:
        return super()._checked(label) if label.is_floating_point() else self._class_numbers(label)


class RealData(TensorData):
    """Samples in memory whose label is one real number for each output: float32 (N, D), -100 for unknown, which NaN becomes too.

    ``classes`` are the names of the outputs. Raises ValueError for labels that fit neither, or are infinite.
    """

    @property
    def kind(self) -> str:
        """``real``."""
        return "real"

    def _checked(self, label: Tensor) -> Tensor:
        label = label.to(torch.float32)
        if label.ndim != 2 or label.shape[1] != len(self.classes):
            raise ValueError(
                f"real labels must have the shape (N, {len(self.classes)}), not {tuple(label.shape)}"
            )
        label = label.nan_to_num(UNLABELLED, torch.inf, -torch.inf)
        if label.isinf().any():
            raise ValueError(
                f"the label of {self.noun} {int(label.isinf().any(1).nonzero()[0])} is infinite"
            )
        return label


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
