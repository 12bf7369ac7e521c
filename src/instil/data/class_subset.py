"""Samples of some classes, with labels in the order of a longer list of classes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Sequence

import torch

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.samples import Samples, labelled_rows
from instil.data.splits import Splits, numbered
from instil.data.streams import Stream

ClassChoice = Sequence[int | str]
"""Classes by name, or by index from 0."""


def chosen_classes(choice: ClassChoice, classes: Sequence[str], key: str) -> tuple[str, ...]:
    """Return the names of chosen classes, in the order of the choice.

    Args:
        choice: names, or indices from 0.
        classes: names of all classes.
        key: option of the choice, for messages.

    Raises:
        ValueError: for an empty choice, and for a class that is unknown or listed twice.

    Example:
        >>> chosen_classes([2, "cat"], ("cat", "dog", "owl"), "class_subset")
        ('owl', 'cat')
    """
    names: list[str] = []
    for entry in choice:
        is_index = isinstance(entry, int)
        if is_index and not 0 <= int(entry) < len(classes):
            raise ValueError(
                f"{key}: there is no class {entry}. Expected an index from 0 to {len(classes) - 1}"
            )
        if not is_index and entry not in classes:
            raise ValueError(
                f"{key}: unknown class '{entry}'. Expected a class of the data."
                f"{suggestion(str(entry), classes)}"
            )
        names.append(classes[int(entry)] if is_index else str(entry))
    if not names:
        raise ValueError(f"{key}: is empty. Expected at least one class")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{key}: class '{repeated[0]}' is listed twice. Expected different classes"
        )
    return tuple(names)


def of_classes(samples: Samples, names: Collection[str], classes: Sequence[str]) -> Samples:
    """Return the samples of some classes, with labels in another list of classes.

    Samples without a label are left out. Where a sample has several items, such as pixels, the
    items of other classes lose their label.

    Args:
        samples: samples with one class per item.
        names: classes that stay.
        classes: names of all classes of the result, which contain ``names``.

    Returns:
        The samples with ``classes``; each keeps its index.

    Raises:
        ValueError: for labels that are not one class per item, and if no sample is left.
    """
    if isinstance(samples, Stream):
        raise ValueError(
            "streamed samples have no class subset. Expected data with a length. Use a source that "
            "is not streamed"
        )
    if samples.kind != "single":
        raise ValueError(
            f"labels of the kind '{samples.kind}' have no class subset. Expected one class per "
            "sample"
        )
    new_index = [classes.index(name) if name in names else UNLABELLED for name in samples.classes]
    # The last entry is for items without a label, which have the index -1 of the table.
    table = torch.tensor([*new_index, UNLABELLED])
    part = copy.copy(samples)
    part.classes = tuple(classes)
    # Afterwards: new labels are checked with the new classes.
    part = part.relabel(table[samples.label.clamp_min(-1)])
    rows = labelled_rows(part)
    if not len(rows):
        raise ValueError(f"no {samples.noun} is of the classes {', '.join(names)}")
    return part.subset(rows)


def splits_of_classes(
    splits: Splits,
    learned: Collection[str],
    tested: Collection[str],
    classes: Sequence[str],
    keep_index: bool = False,
) -> Splits:
    """Return data in which a network with ``classes`` learns some and is tested on others.

    Args:
        splits: data of a source.
        learned: classes of the training samples.
        tested: classes of the validation and test samples.
        classes: classes of the network.
        keep_index: whether samples keep their index. By default they are numbered from 0.

    Raises:
        ValueError: for labels that are not one class per item, and for a split without samples.
    """
    parts: dict[str, Samples] = {}
    for name in ("train", "validation", "test"):
        part = of_classes(getattr(splits, name), learned if name == "train" else tested, classes)
        if not keep_index:
            part = numbered(part, torch.arange(len(part)))
        parts[name] = part
    return dataclasses.replace(
        splits,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        classes=tuple(classes),
    )
