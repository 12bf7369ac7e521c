"""Train, validation and test; what is held out is the same for every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.data.samples import Samples, labelled_rows

Data = TypeVar("Data", bound=Samples)
ValidationOption = Annotated[
    float, Doc("share of the labelled training data to validate on, where there is no such split")
]
TestOption = Annotated[
    float, Doc("share of the labelled training data to test on, where there is no such split")
]
HOLD_OUT_SEED = 0  # not the run's: all seeds must be judged on the same images


@dataclass(frozen=True)
class Splits:
    """What a source gives: three data sets, the class names in label order, and the kind of label (``single``, ``multi``, ``binary``, ``real``)."""

    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[str, ...]
    kind: str
    notes: tuple[str, ...] = ()
    """What a user should know of the data, such as files that were left out."""


def splits(parts: Mapping[str, Samples], validation: float, test: float) -> Splits:
    """The three of ``parts``; without ``test``, then without ``validation``, such a share of ``train`` is held out for it.

    Raises ValueError where there is no train set, a set is empty, or a share leaves one empty.
    """
    for name, part in parts.items():
        if not len(part):
            raise ValueError(f"the {name} set has no {part.noun}s")
    if "train" not in parts:
        raise ValueError(f"there is no train set, only {', '.join(parts) or 'nothing'}")
    train = parts["train"]
    train, tested = (train, parts["test"]) if "test" in parts else hold_out(train, test)
    train, validated = (
        (train, parts["validation"]) if "validation" in parts else hold_out(train, validation)
    )
    return Splits(train, validated, tested, train.classes, train.kind)


def hold_out(data: Data, share: float) -> tuple[Data, Data]:
    """The rest and a ``share`` of ``data`` in which every class has its share; both are numbered anew, in the order of ``data``.

    Samples without a label stay in the rest: nothing can be judged on them.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share that is held out must lie between 0 and 1, not {share}")
    rows = labelled_rows(data)
    if not len(rows):
        rows = torch.arange(len(data))
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        raise ValueError(f"a share of {share} of {len(rows)} {data.noun}s leaves a set empty")
    held_out = rows[balanced_order(data.label[rows], HOLD_OUT_SEED, proportional=True)[:count]]
    rest = torch.ones(len(data), dtype=torch.bool)
    rest[held_out] = False
    return numbered(data, rest.nonzero().flatten()), numbered(data, held_out)


def numbered(data: Data, rows: Tensor) -> Data:
    """These rows, in ascending order, with indices from 0."""
    part = data.subset(rows.sort().values)
    part.index = torch.arange(len(part))
    return part


def balanced_order(label: Tensor, seed: int, proportional: bool = False) -> Tensor:
    """A random order of the rows of which every beginning holds each class equally often, or in proportion to its size.

    Rows with several classes, or several items, are in plain random order.
    """
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    if label.ndim > 1 and label[0:1].numel() > 1:
        return order
    shuffled = label.flatten()[order]
    _, group, counts = torch.unique(shuffled, return_inverse=True, return_counts=True)
    by_class = group.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(order)) - starts[group[by_class]]
    key = (rank + 0.5) / counts[group] if proportional else rank
    return order[key.argsort(stable=True)]
