"""Train, validation and test data; held-out samples are the same for every seed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.groups import whole_groups
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


def splits(
    parts: Mapping[str, Samples],
    validation: float,
    test: float,
    group: Sequence[Hashable] | None = None,
) -> Splits:
    """Complete the splits of a source; missing ones are held out of the training data.

    Args:
        parts: data by split: ``train``, and optionally ``validation`` and ``test``.
        validation: share of the training data for a missing validation split.
        test: share of the training data for a missing test split, which is held out first.
        group: picture, text or other origin of each training sample; samples of one origin are
            held out together as far as possible (see ``whole_groups``). None: each has its own.

    Returns:
        Train, validation and test data. Held-out parts keep the order of the data, have new indices
        from 0, and the same class proportions as the rest. Unlabelled samples are training data.

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
    held_out: dict[str, Samples] = {}
    for name, share in (("test", test), ("validation", validation)):
        if name in parts:
            held_out[name] = parts[name]
            continue
        rows = _held_out_rows(train, share, name, group)
        is_rest = torch.ones(len(train), dtype=torch.bool)
        is_rest[rows] = False
        rest = is_rest.nonzero().flatten()
        train, held_out[name] = numbered(train, rest), numbered(train, rows)
        group = None if group is None else [group[row] for row in rest.tolist()]
    validation_data, test_data = held_out["validation"], held_out["test"]
    return Splits(train, validation_data, test_data, train.classes, train.kind)


def _held_out_rows(
    data: Samples, share: float, split: str, group: Sequence[Hashable] | None
) -> Tensor:
    """Rows of a held-out split, with the same class proportions as the rest.

    Unlabelled samples stay in the rest, as they cannot be evaluated.
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
    order = rows[balanced_order(data.label[rows], HOLD_OUT_SEED, proportional=True)]
    held_out = order[:count]
    if group is not None and count:
        held_out = torch.tensor(whole_groups(order.tolist(), group, count))
    if not 0 < len(held_out) < len(rows):
        empty = "training" if len(held_out) else split
        raise ValueError(
            f"a share of {share} of {len(rows)} {data.noun}s for the {split} split leaves the "
            f"{empty} split empty. Expected at least one in each. Set another share, or use data "
            f"with a {split} split"
        )
    return held_out


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
