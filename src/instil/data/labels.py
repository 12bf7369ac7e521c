"""Which samples keep their label, and what label they have."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.samples import Samples, labelled_rows
from instil.data.splits import balanced_order

Data = TypeVar("Data", bound=Samples)
APART = 987_654_321  # the loader shuffles by the same seed: without this, its first batches would be the labelled images


def few_labels(data: Data, count: int, seed: int = 0) -> Data:
    """The same samples, of which ``count`` keep their label, balanced over the classes and drawn from ``seed``; the rest become -100.

    Raises ValueError where fewer than ``count`` are labelled, or ``count`` is below zero.
    """
    rows = labelled_rows(data)
    if not 0 <= count <= len(rows):
        raise ValueError(
            f"num_labeled: {count} of {len(rows)} labelled {data.noun}s cannot keep their label"
        )
    kept = rows[balanced_order(data.label[rows], seed + APART)[:count]]
    label = torch.full_like(data.label, UNLABELLED)
    label[kept] = data.label[kept]
    return data.relabel(label)


def labelled(data: Data) -> Data:
    """The samples that have a label, each with its index; ValueError where none has."""
    rows = labelled_rows(data)
    if not len(rows):
        raise ValueError(f"no {data.noun} has a label")
    return data.subset(rows)


def num_labelled(data: Samples) -> int:
    """Number of samples with a label for at least one of their items."""
    return len(labelled_rows(data))


def relabel(data: Data, label: Tensor) -> Data:
    """The same samples with other labels, of shape (N,) or (N, C)."""
    return data.relabel(label)
