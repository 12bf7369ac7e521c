"""Samples in memory whose tensors may have different shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.samples import Facts, Samples

Collate = Callable[[Sequence[Batch]], Batch]
"""Function from the inputs of samples to those of a batch."""


def stack_items(items: Sequence[Batch]) -> Batch:
    """Stack the tensors of samples.

    Args:
        items: inputs of each sample, by batch key.

    Returns:
        Inputs with the samples in the first dimension.

    Raises:
        ValueError: for tensors of different shapes.

    Example:
        >>> stack_items([{"x": torch.tensor(1)}, {"x": torch.tensor(2)}])
        {'x': tensor([1, 2])}
    """
    batch: Batch = {}
    for key in items[0]:
        values = [torch.as_tensor(item[key]) for item in items]
        shapes = sorted({tuple(value.shape) for value in values})
        if len(shapes) > 1:
            raise ValueError(
                f"{key}: samples of the shapes {shapes[0]} and {shapes[-1]}. Expected one shape. "
                "Define Task.collate, for example with padding"
            )
        batch[key] = torch.stack(values)
    return batch


class ItemData(Samples):
    """Samples in memory as one mapping of tensors each, which ``collate`` joins to batches.

    In a recipe ``collate`` is that of the task, in training and evaluation.

    Args:
        items: inputs of each sample, by batch key.
        label: labels of all samples, as for ``Samples``.
        classes: class names.
        facts: properties of the data other than the number of classes.

    Attributes:
        collate: function from the inputs of samples to those of a batch.

    Raises:
        ValueError: for labels that fit neither the samples nor the classes.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        label: Tensor,
        classes: Sequence[str],
        facts: Mapping[str, Any] | None = None,
    ):
        if len(items) != len(label):
            raise ValueError(f"label: there are {len(label)}. Expected {len(items)}, as of items")
        self.items = [dict(item) for item in items]
        self.collate: Collate = stack_items
        self._facts = dict(facts or {})
        super().__init__(label, classes)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), **self._facts}

    def inputs(self, rows: Tensor) -> Batch:
        return dict(self.collate([self.items[row] for row in rows.tolist()]))

    def _take(self, rows: Tensor) -> None:
        self.items = [self.items[row] for row in rows.tolist()]
