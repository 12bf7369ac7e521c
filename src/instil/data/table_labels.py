"""Labels of a table: class names, several yes-or-no columns, or real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.table_encoder import Table, category_text, is_missing


def class_labels(values: Sequence[Any], classes: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """Return class indices (N,) and class names.

    Args:
        values: class of each row, as text or whole number; a missing value is a missing label.
        classes: names of the classes; None for those of the labels, in alphabetical order, or in
            numerical order if all are numbers.

    Raises:
        ValueError: for a class that is not in ``classes``, and real numbers.
    """
    texts = [_class_name(value, row) for row, value in enumerate(values)]
    names = list(classes) if classes else sorted(set(texts) - {""}, key=_order)
    if not classes and any(not _is_number(name) for name in names):
        names = sorted(names)
    indices = {name: index for index, name in enumerate(names)} | {"": UNLABELLED}
    for row, text in enumerate(texts):
        if text not in indices:
            raise ValueError(
                f"label: row {row} has the unknown class '{text}'. Expected one of "
                f"{', '.join(names)}.{suggestion(text, names, is_listed=True)}"
            )
    return torch.tensor([indices[text] for text in texts]), names


def number_labels(table: Table, names: Sequence[str]) -> Tensor:
    """Return the values of several columns as float32 (N, D); missing ones are -100.

    Raises:
        ValueError: for a text and an infinite number.
    """
    columns: list[list[float]] = []
    for name in names:
        column: list[float] = []
        for row, value in enumerate(table[name]):
            if isinstance(value, str) and value:
                raise ValueError(
                    f"label: row {row} of column '{name}' is '{value}'. Expected a number. Use "
                    "task: tabular_classification for classes"
                )
            column.append(UNLABELLED if is_missing(value) else _label_number(value, name, row))
        columns.append(column)
    return torch.tensor(columns, dtype=torch.float32).T.contiguous()


def _label_number(value: Any, name: str, row: int) -> float:
    label = float(value)
    if not math.isfinite(label):
        raise ValueError(
            f"label: row {row} of column '{name}' is {label}. Expected a finite number, or no "
            "value for a missing label"
        )
    return label


def _class_name(value: Any, row: int) -> str:
    if isinstance(value, float) and not is_missing(value) and not value.is_integer():
        raise ValueError(
            f"label: row {row} is {value}. Expected a class, as text or whole number. Use "
            "task: tabular_regression for real numbers"
        )
    return category_text(value)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def _order(text: str) -> tuple[int, str]:
    return (int(text) if _is_number(text) else 0, text)
