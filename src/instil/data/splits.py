"""Train, validation and test data; held-out samples are the same for every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.samples import Samples, labelled_rows

Data = TypeVar("Data", bound=Samples)
ValidationOption = Annotated[
    float,
    Doc("share of the labelled training data for validation, if the data have no such split"),
]
TestOption = Annotated[
    float, Doc("share of the labelled training data for test, if the data have no such split")
]
HOLD_OUT_SEED = 0
"""Seed of held-out samples, independent of the run: all runs are evaluated on the same samples."""


@dataclass(frozen=True)
class Splits:
    """Train, validation and test data of a source.

    Attributes:
        train: training data.
        validation: data for the choice of weights and options.
        test: data for the final results.
        classes: class names in label order.
        kind: kind of label: ``single``, ``multi``, ``binary``, ``real``, ``token``, ``none``,
            ``sequence``, ``boxes`` or ``graded``.
        notes: remarks for the user, such as files that were left out.
    """

    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[str, ...]
    kind: str
    notes: tuple[str, ...] = ()


def splits(parts: Mapping[str, Samples], validation: float, test: float) -> Splits:
    """Complete the splits of a source; missing ones are held out of the training data.

    Args:
        parts: data by split: ``train``, and optionally ``validation`` and ``test``.
        validation: share of the training data for a missing validation split.
        test: share of the training data for a missing test split, which is held out first.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: without a train split, for an empty split, and a share that leaves one empty.
    """
    for name, part in parts.items():
        if not len(part):
            raise ValueError(f"the {name} set has no {part.noun}s")
        part.source_split = name
    if "train" not in parts:
        raise ValueError(f"no train set, only {', '.join(parts) or 'nothing'}")
    train = parts["train"]
    if "test" in parts:
        test_data = parts["test"]
    else:
        train, test_data = hold_out(train, test, "test")
    if "validation" in parts:
        validation_data = parts["validation"]
    else:
        train, validation_data = hold_out(train, validation, "validation")
    return Splits(train, validation_data, test_data, train.classes, train.kind)


def hold_out(data: Data, share: float, split: str) -> tuple[Data, Data]:
    """Divide data into a rest and a held-out share with the same class proportions.

    Unlabelled samples stay in the rest, as they cannot be evaluated. Both parts keep the order of
    ``data`` and have new indices from 0.

    Args:
        data: samples to divide.
        share: share of the labelled samples to hold out, in (0, 1).
        split: name of the held-out split, for messages.

    Returns:
        The rest and the held-out samples.

    Raises:
        ValueError: for a share outside (0, 1), or one that leaves a part empty.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"the share of {data.noun}s that is held out for the {split} split is out of range. "
            f"Expected a number between 0 and 1, got {share}"
        )
    rows = labelled_rows(data)
    if not len(rows):
        rows = torch.arange(len(data))
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        empty = "training" if count else split
        raise ValueError(
            f"a share of {share} of {len(rows)} {data.noun}s for the {split} split leaves the "
            f"{empty} split empty. Expected at least one in each. Set another share, or use data "
            f"with a {split} split"
        )
    held_out = rows[balanced_order(data.label[rows], HOLD_OUT_SEED, proportional=True)[:count]]
    is_rest = torch.ones(len(data), dtype=torch.bool)
    is_rest[held_out] = False
    return numbered(data, is_rest.nonzero().flatten()), numbered(data, held_out)


def drawn_rows(data: Data, count: int) -> Data:
    """Return randomly drawn samples with balanced classes, the same for every run.

    Args:
        data: samples.
        count: number of samples; all of them if there are fewer.
    """
    return numbered(data, balanced_order(data.label, HOLD_OUT_SEED)[:count])


def numbered(data: Data, rows: Tensor) -> Data:
    """Return these rows in ascending order, with new indices from 0."""
    part = data.subset(rows.sort().values)
    part.index = torch.arange(len(part))
    return part


def balanced_order(label: Tensor, seed: int, proportional: bool = False) -> Tensor:
    """Return a random order of rows in which every prefix is balanced over the classes.

    Rows with several classes, several items or real numbers are in plain random order.

    Args:
        label: class indices (N,), or labels of another shape.
        seed: seed of the order.
        proportional: whether a prefix holds the classes in proportion to their size, instead of
            equally often.

    Returns:
        (N,), int64.
    """
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    if (label.ndim > 1 and label[0:1].numel() > 1) or _is_real(label):
        return order
    shuffled = label.flatten()[order]
    _, group, counts = torch.unique(shuffled, return_inverse=True, return_counts=True)
    by_class = group.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(order)) - starts[group[by_class]]
    key = (rank + 0.5) / counts[group] if proportional else rank
    return order[key.argsort(stable=True)]


def _is_real(label: Tensor) -> bool:
    """Whether labels are numbers and not classes, whose values would be held out by frequency."""
    is_class = (label == 0) | (label == 1) | (label == UNLABELLED)
    return label.is_floating_point() and not bool(is_class.all())
