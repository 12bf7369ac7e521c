"""Removal and replacement of labels, and names of classes without names."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from instil.data.samples import Samples, labelled_rows
from instil.data.splits import balanced_order
from instil.items.rule import PAIR_KEY

Data = TypeVar("Data", bound=Samples)
# The loader shuffles by the same seed. Without this offset the labelled images would be the first
# ones of its first epoch.
APART = 987_654_321


def few_labels(data: Data, count: int, seed: int = 0) -> Data:
    """Return the same samples with only ``count`` labels, balanced over the classes.

    Args:
        data: samples, some of them labelled.
        count: number of samples that keep their label; the others become -100.
        seed: seed of the choice.

    Returns:
        Data set of the same size.

    Raises:
        ValueError: if ``count`` is negative or larger than the number of labelled samples.
    """
    rows = labelled_rows(data)
    if not 0 <= count <= len(rows):
        raise ValueError(
            f"num_labeled: {count} of {len(rows)} labelled {data.noun}s cannot keep their label. "
            f"Expected 0 to {len(rows)}"
        )
    chosen = rows[balanced_order(data.label[rows], seed + APART)[:count]]
    return data.keep_labels(chosen)


def labelled(data: Data) -> Data:
    """Return the samples that have a label; each keeps its index.

    Raises:
        ValueError: if there are none.
    """
    rows = labelled_rows(data)
    if not len(rows):
        raise ValueError(f"no {data.noun} has a label. Expected at least one")
    return data.subset(rows)


def paired(data: Data) -> Data:
    """Return the samples whose tensor ``is_pair`` is True, or all without it; each keeps its index.

    Raises:
        ValueError: if there are none.
    """
    is_pair = getattr(data, "tensors", {}).get(PAIR_KEY)
    if is_pair is None:
        return data
    rows = is_pair.nonzero().flatten()
    if not len(rows):
        raise ValueError(f"is_pair: no {data.noun} is a pair. Expected at least one")
    return data.subset(rows)


def num_labelled(data: Samples) -> int:
    """Return the number of samples with a label for at least one of their items."""
    return len(labelled_rows(data))


def relabel(data: Data, label: Tensor) -> Data:
    """Return the same samples with other labels, of shape (N,) or (N, C)."""
    return data.relabel(label)


def class_index_names(label: Tensor) -> list[str]:
    """Return the indices of the classes as their names.

    Args:
        label: class indices (N,), or a column for each class (N, C).

    Example:
        >>> import torch
        >>> class_index_names(torch.tensor([2, 0]))
        ['0', '1', '2']
    """
    num_classes = label.shape[-1]
    if label.ndim == 1 and len(label):
        num_classes = int(label.max()) + 1
    return [str(index) for index in range(num_classes)]
