"""Samples of several data sets as one data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.samples import Facts, Samples


class JoinedSamples(Samples):
    """Samples of several data sets with the same classes, one data set after the other.

    A sample keeps its index if no other one has it; otherwise all are numbered from 0. Facts and
    augmentation are those of the first data set.

    Args:
        parts: the data sets, whose labels have the same classes.

    Raises:
        ValueError: if their classes differ.
    """

    def __init__(self, parts: Sequence[Samples]):
        first = parts[0]
        if any(part.classes != first.classes for part in parts):
            raise ValueError("joined samples have different classes. Expected the same classes")
        index = torch.cat([part.index for part in parts])
        is_unique = len(torch.unique(index)) == len(index)
        label = torch.cat([part.label for part in parts])
        super().__init__(label, first.classes, index if is_unique else None)
        self.origin = torch.cat([part.origin for part in parts])
        self.parts = tuple(parts)
        self.augmentation = first.augmentation
        self.encode_texts = first.encode_texts
        self._rows = torch.arange(len(index))
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @property
    def facts(self) -> Facts:
        return self.parts[0].facts

    def inputs(self, rows: Tensor) -> Batch:
        """Return the inputs of a network for these rows, by batch key.

        Raises:
            ValueError: if the inputs of the data sets have different shapes.
        """
        rows = self._rows[rows]
        owner = torch.bucketize(rows, self._ends, right=True)
        batches: list[Batch] = []
        positions: list[Tensor] = []
        for i, part in enumerate(self.parts):
            position = (owner == i).nonzero().flatten()
            if len(position):
                batches.append(part.inputs(rows[position] - self._ends[i] + len(part)))
                positions.append(position)
        order = torch.cat(positions).argsort()
        return {key: _joined(key, batches, order) for key in batches[0]}

    def _take(self, rows: Tensor) -> None:
        self._rows = self._rows[rows]


def _joined(key: str, batches: Sequence[Batch], order: Tensor) -> Tensor:
    """Rows of all batches under one key, in the order of the request."""
    values = [batch[key] for batch in batches if isinstance(batch.get(key), Tensor)]
    shapes = {tuple(value.shape[1:]) for value in values}
    if len(shapes) != 1 or len(values) != len(batches):
        raise ValueError(
            f"'{key}' of joined samples has different shapes ({_listed(shapes)}). Expected inputs "
            "of one shape"
        )
    return torch.cat(values)[order]


def _listed(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(str(shape) for shape in sorted(shapes)) or "none"
