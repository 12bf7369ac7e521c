"""Encoding of the columns of a table as numbers, fitted on the training rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.cards.closest import did_you_mean

Table = Mapping[str, Sequence[Any]]
"""Values of each column by name: numbers or texts; None, NaN and "" are missing."""
OTHER = "other"
"""Category of rare and unknown values."""


@dataclass(frozen=True)
class Feature:
    """Encoding of one column.

    Attributes:
        name: name of the column.
        start: first column of the encoding.
        width: number of columns of the encoding.
        categories: values of a categorical column, in the order of their columns; None for numbers.
        mean: mean of the numbers of the training rows.
        std: standard deviation of these numbers, 1 for a constant.
    """

    name: str
    start: int
    width: int
    categories: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0


class TableEncoder:
    """Encoder of table columns, whose statistics are those of the training rows.

    A column of numbers becomes ``(x - mean) / std``. If it has missing values in the training rows,
    a second column marks them; the value is then the mean. A categorical column becomes one column
    for each category of the training rows. A missing category is a category of its own if the
    training rows have it. Unknown categories are ``other``, or 0 in all columns without ``other``.

    Args:
        table: training rows.
        categorical: names of columns that are categorical; columns with texts always are.
        min_count: number of training rows below which a category belongs to ``other``.
        standardize: False to keep numbers as they are.

    Raises:
        ValueError: for an unknown column in ``categorical``, values of other types, infinite
            numbers, and a column of numbers without any.
    """

    def __init__(
        self,
        table: Table,
        categorical: Collection[str] = (),
        min_count: int = 1,
        standardize: bool = True,
    ):
        for name in categorical:
            if name not in table:
                raise ValueError(
                    f"categorical: no input column '{name}'. Expected one of {', '.join(table)}."
                    f"{did_you_mean(name, table)}"
                )
        features: list[Feature] = []
        start = 0
        for name, values in table.items():
            if name in categorical or any(isinstance(value, str) and value for value in values):
                feature = _category_feature(name, start, values, min_count)
            else:
                feature = _number_feature(name, start, values, standardize)
            features.append(feature)
            start += feature.width
        self.features = tuple(features)
        self.width = start

    @classmethod
    def from_features(cls, features: Sequence[Feature]) -> TableEncoder:
        """Return the encoder of these features, such as those of a stored encoder.

        Args:
            features: encodings of all columns, in their order.
        """
        encoder = cls.__new__(cls)
        encoder.features = tuple(features)
        encoder.width = sum(feature.width for feature in features)
        return encoder

    def encode(self, table: Table) -> Tensor:
        """Encode rows.

        Args:
            table: rows with all columns of the training rows; further columns are ignored.

        Returns:
            (N, width), float32.

        Raises:
            ValueError: for a missing column and values of other types.
        """
        parts: list[NDArray[np.float64]] = []
        for feature in self.features:
            if feature.name not in table:
                raise ValueError(
                    f"columns: no column '{feature.name}'. Expected the columns of training: "
                    f"{', '.join(one.name for one in self.features)}."
                    f"{did_you_mean(feature.name, table)}"
                )
            parts.append(_encoded(feature, table[feature.name]))
        return torch.from_numpy(np.concatenate(parts, axis=1)).float()

    def surprises(self, table: Table, split: str) -> list[str]:
        """Return sentences about unknown categories and missing numbers that training lacks.

        Args:
            table: rows outside of training.
            split: name of the rows in the sentences.
        """
        notes: list[str] = []
        for feature in self.features:
            values = table[feature.name]
            if feature.categories is None:
                count = int(np.isnan(_numbers(feature.name, values)).sum())
                problem = "missing values, unlike in training; encoded as the mean"
                is_new = feature.width == 1
            else:
                texts = _texts(values)
                count = sum(text not in feature.categories for text in texts)
                replacement = OTHER if OTHER in feature.categories else "all zeros"
                problem = f"values of unknown categories; they are encoded as {replacement}"
                is_new = True
            if count and is_new:
                notes.append(f"column '{feature.name}' of {split}: {count} {problem}")
        return notes


def is_missing(value: Any) -> bool:
    """Whether a value of a table is None, NaN or an empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def check_column_types(tables: Mapping[str, Table], ignored: Collection[str]) -> None:
    """Check that each column has texts in all splits, or numbers in all splits.

    Args:
        tables: rows of each split; the training rows come first.
        ignored: columns that may differ, such as categories.

    Raises:
        ValueError: for a column of texts in one split and of numbers in another.
    """
    first, *others = tables
    for name, values in tables[first].items():
        expected = _type_of(values)
        for split in others:
            received = _type_of(tables[split][name])
            if name not in ignored and received and expected and received != expected:
                raise ValueError(
                    f"files.{split}: column '{name}' has {received}. Expected {expected} as in "
                    f"files.{first}. Correct the files, or set categorical: [{name}]"
                )


def _type_of(values: Sequence[Any]) -> str:
    """``texts`` or ``numbers``; empty for a column of missing values."""
    present = [value for value in values if not is_missing(value)]
    if not present:
        return ""
    return "texts" if any(isinstance(value, str) for value in present) else "numbers"


def _number_feature(name: str, start: int, values: Sequence[Any], standardize: bool) -> Feature:
    numbers = _numbers(name, values)
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        raise ValueError(
            f"column '{name}': the training rows have no value. Expected at least one. Leave the "
            "column out with drop"
        )
    width = 1 if len(present) == len(numbers) else 2
    mean = float(present.mean()) if standardize else 0.0
    std = float(present.std()) if standardize and np.ptp(present) else 1.0
    return Feature(name, start, width, None, mean, std or 1.0)


def _category_feature(name: str, start: int, values: Sequence[Any], min_count: int) -> Feature:
    counts = Counter(_texts(values))
    frequent = sorted(text for text, count in counts.items() if count >= min_count)
    categories = tuple(frequent)
    if len(frequent) < len(counts) and OTHER not in frequent:
        categories = (*frequent, OTHER)
    return Feature(name, start, len(categories), categories)


def _numbers(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers (N,), NaN for missing ones."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if is_missing(value):
            continue
        if not isinstance(value, (int, float, np.number, np.bool_)):
            raise ValueError(
                f"column '{name}': row {row} is {value!r} ({type(value).__name__}). Expected a "
                f"number. Set categorical: [{name}] for categories"
            )
        numbers[row] = float(value)
        if math.isinf(numbers[row]):
            raise ValueError(f"column '{name}': row {row} is infinite. Expected a finite number")
    return numbers


def category_text(value: Any) -> str:
    """Return the name of a category; a whole number has the same one as int and as float."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if is_missing(value) else str(value)


def _texts(values: Sequence[Any]) -> list[str]:
    return [category_text(value) for value in values]


def _encoded(feature: Feature, values: Sequence[Any]) -> NDArray[np.float64]:
    """Encoding (N, width) of the values of one column."""
    encoding = np.zeros((len(values), feature.width))
    if feature.categories is None:
        numbers = _numbers(feature.name, values)
        missing = np.isnan(numbers)
        encoding[:, 0] = np.where(missing, 0.0, (numbers - feature.mean) / feature.std)
        if feature.width == 2:
            encoding[:, 1] = missing
        return encoding
    positions = {text: column for column, text in enumerate(feature.categories)}
    for row, text in enumerate(_texts(values)):
        column = positions.get(text, positions.get(OTHER))
        if column is not None:
            encoding[row, column] = 1.0
    return encoding
