"""Samples without labels, and with sequences, boxes or relevance grades as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.augmentation import BoxAugmentation
from instil.data.box_checks import checked_boxes
from instil.data.samples import Facts, TensorData


class UnlabelledData(TensorData):
    """Samples in memory without any labels, for self-supervised and label-free tasks.

    A batch has ``label`` (N,), which is -100 for all samples.

    Args:
        tensors: input tensors by batch key.
        facts: properties of the data that builders of networks need.

    Raises:
        ValueError: without tensors, or for tensors of different lengths.
    """

    def __init__(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None):
        if not tensors:
            raise ValueError("tensors: there are none. Expected at least one input")
        num_samples = len(next(iter(tensors.values())))
        super().__init__(tensors, torch.full((num_samples,), UNLABELLED), (), facts)

    @property
    def kind(self) -> str:
        """``none``."""
        return "none"

    @property
    def facts(self) -> Facts:
        """Properties of the data, without a number of classes."""
        return dict(self._facts)


class SequenceData(TensorData):
    """Samples in memory with a sequence of symbols of any length as label.

    A batch has ``label`` int64 (N, L), padded with -100 to the longest sequence of the data, and
    ``label_length`` int64 (N,), 0 for no label.

    Args:
        tensors: input tensors by batch key.
        sequences: symbol indices of each sample; empty for no label.
        classes: names of the symbols.
        facts: properties of the data other than the number of symbols.

    Raises:
        ValueError: for tensors of another length, or an index that is not a symbol.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        sequences: Sequence[Sequence[int] | Tensor],
        classes: Sequence[str],
        facts: Mapping[str, Any] | None = None,
    ):
        super().__init__(tensors, padded(sequences, ()).long(), classes, facts)

    @property
    def kind(self) -> str:
        """``sequence``."""
        return "sequence"

    def __getitems__(self, rows: Tensor | Sequence[int]) -> Batch:
        """Return the batch of these rows with ``label_length``."""
        batch = super().__getitems__(rows)
        return batch | {"label_length": (batch["label"] != UNLABELLED).sum(1)}


class BoxData(TensorData):
    """Images, or other samples, in memory with any number of boxes each.

    A batch has ``label`` int64 (N, K), ``box`` float32 (N, K, 4), both padded with -100 to the
    largest number of boxes in the data, and ``num_boxes`` int64 (N,): 0 for a sample known to have
    no box, and -100 for a sample without a label.

    Args:
        tensors: input tensors by batch key.
        boxes: for each sample, (k, 4) edges left, top, right, bottom; None for no label.
        labels: for each sample, class indices (k,); None for no label.
        classes: class names.
        facts: properties of the data other than the number of classes.

    Raises:
        ValueError: for boxes of another shape or without an area, and labels that do not fit them.
    """

    augmentation = BoxAugmentation

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        boxes: Sequence[Sequence[Sequence[float]] | Tensor | None],
        labels: Sequence[Sequence[int] | Tensor | None],
        classes: Sequence[str],
        facts: Mapping[str, Any] | None = None,
    ):
        if len(boxes) != len(labels):
            raise ValueError(f"labels: there are {len(labels)}. Expected {len(boxes)}, as of boxes")
        pairs = [
            checked_boxes(row, *pair) for row, pair in enumerate(zip(boxes, labels, strict=True))
        ]
        counts = [UNLABELLED if box is None else len(box) for box in boxes]
        self.num_boxes = torch.tensor(counts, dtype=torch.int64)
        self.box = padded([box for box, _ in pairs], (4,)).float()
        super().__init__(tensors, padded([label for _, label in pairs], ()).long(), classes, facts)

    @property
    def kind(self) -> str:
        """``boxes``."""
        return "boxes"

    @property
    def has_label(self) -> Tensor:
        """(N,), bool, whether the boxes of a sample are known; it may have none."""
        return self.num_boxes != UNLABELLED

    @property
    def has_target(self) -> Tensor:
        """(N,), bool, whether a sample has a box."""
        return self.num_boxes > 0

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """``label``, ``box`` and ``num_boxes``."""
        return self.label, self.box, self.num_boxes

    def __getitems__(self, rows: Tensor | Sequence[int]) -> Batch:
        """Return the batch of these rows with ``box`` and ``num_boxes``."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return super().__getitems__(rows) | {
            "box": self.box[rows],
            "num_boxes": self.num_boxes[rows],
        }

    def keep_labels(self, rows: Tensor) -> BoxData:
        """Return the same samples; only these rows keep their boxes."""
        other = super().keep_labels(rows)
        is_hidden = torch.ones(len(self), dtype=torch.bool)
        is_hidden[rows] = False
        other.num_boxes = self.num_boxes.masked_fill(is_hidden, UNLABELLED)
        other.box = self.box.masked_fill(is_hidden[:, None, None], UNLABELLED)
        return other

    def _take(self, rows: Tensor) -> None:
        super()._take(rows)
        self.box = self.box[rows]
        self.num_boxes = self.num_boxes[rows]


class GradedData(TensorData):
    """Queries in memory with the relevance grades of their candidates as label.

    A batch has ``label`` float32 (N, D): the grade >= 0 of each candidate, -100 for no candidate.

    Args:
        tensors: input tensors by batch key.
        grades: (N, D).
        facts: properties of the data other than ``candidates``, which is D.

    Raises:
        ValueError: for another shape, and for grades that are negative or not finite.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        grades: Tensor,
        facts: Mapping[str, Any] | None = None,
    ):
        super().__init__(tensors, grades, (), facts)

    @property
    def kind(self) -> str:
        """``graded``."""
        return "graded"

    @property
    def facts(self) -> Facts:
        """Properties of the data, with ``candidates``."""
        return {"candidates": self.label.shape[1], **self._facts}

    def _checked(self, label: Tensor) -> Tensor:
        label = label.to(torch.float32)
        if label.ndim != 2:
            raise ValueError(
                f"grades: wrong shape. Expected (queries, candidates), got {tuple(label.shape)}"
            )
        is_wrong = ~(label.isfinite() & ((label >= 0) | (label == UNLABELLED)))
        if is_wrong.any():
            row, column = is_wrong.nonzero()[0].tolist()
            raise ValueError(
                f"grades: candidate {column} of {self.noun} {row} has {label[row, column]:g}. "
                "Expected a finite grade >= 0, or -100 for none"
            )
        return label


def padded(values: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    """Return values of different lengths as one tensor (N, longest, ...), padded with -100.

    Args:
        values: for each sample, a tensor or list (k, ...).
        shape: shape of one value.
    """
    tensors = [torch.as_tensor(value) for value in values]
    longest = max((len(tensor) for tensor in tensors), default=0)
    padded = torch.full((len(tensors), max(1, longest), *shape), float(UNLABELLED))
    for row, tensor in enumerate(tensors):
        if len(tensor):
            padded[row, : len(tensor)] = tensor
    return padded
