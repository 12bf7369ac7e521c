"""Training, validation and test rows of a table, encoded as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.cards.closest import did_you_mean
from instil.core import UNLABELLED
from instil.data.munge import munge_rows
from instil.data.raw_rows import FACT, KEY, RawRows
from instil.data.samples import RealData, Samples, TensorData
from instil.data.splits import Splits, splits
from instil.data.table_encoder import Table, TableEncoder, check_column_types, is_missing
from instil.data.table_labels import class_labels, number_labels
from instil.data.table_numbers import is_number

REGRESSION = "tabular_regression"
"""Task with real labels."""
MinCountOption = Annotated[
    int, Ge(1), Doc("number of training rows below which a category belongs to `other`")
]
StandardizeOption = Annotated[
    bool, Doc("whether numbers, and real labels, are divided by their standard deviation")
]
MungeOption = Annotated[
    int, Ge(0), Doc("number of synthetic rows without a label for each training row, by MUNGE")
]
SwapOption = Annotated[
    float, Gt(0), Le(1), Doc("probability with which MUNGE changes a feature of a row")
]
ScaleOption = Annotated[float, Gt(0), Doc("divisor of the standard deviation of numbers of MUNGE")]


class TableData(TensorData):
    """Encoded rows of a table with one class, or several ones, per row.

    Attributes:
        encoder: encoder of the rows.
    """

    noun = "row"
    encoder: TableEncoder


class RealTableData(RealData):
    """Encoded rows of a table with real labels.

    Attributes:
        encoder: encoder of the rows.
        label_mean: (D,), mean of the labels of the training rows, which is subtracted.
        label_std: (D,), standard deviation of these labels, by which they are divided.
    """

    noun = "row"
    encoder: TableEncoder
    label_mean: Tensor
    label_std: Tensor


def table_data(
    tables: Mapping[str, Table],
    label: str | Sequence[str],
    shares: tuple[float, float],
    task_name: str = "",
    *,
    classes: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    min_count: int = 1,
    standardize: bool = True,
    munge: int = 0,
    swap: float = 0.5,
    scale: float = 1.0,
) -> Splits:
    """Encode the rows of a table, with statistics of the training rows only.

    Args:
        tables: rows of each split: ``train``, and optionally ``validation`` and ``test``.
        label: column of the label, or several ones: D real numbers, or yes or no for each class.
        shares: shares of the training rows for missing validation and test rows.
        task_name: task of the recipe; ``tabular_regression`` has real labels.
        classes: names of the classes; None for those of the labels.
        drop: columns to leave out.
        categorical: columns of numbers that are categories.
        min_count: see ``TableEncoder``.
        standardize: see ``TableEncoder``; real labels are standardized too.
        munge: number of synthetic rows per training row, without a label.
        swap: see ``munge_rows``.
        scale: see ``munge_rows``.

    Raises:
        ValueError: for a missing column and wrong values.
    """
    labels = [label] if isinstance(label, str) else list(label)
    for part in tables.values():
        _check_names(part, labels, "label")
        _check_names(part, drop, "drop")
    whole = _joined(tables)
    check_column_types(tables, {*labels, *drop, *categorical})
    samples = _labelled_indices(whole, label, classes, task_name)
    divided = splits(_parts(samples, tables), *shares)
    inputs = {name: whole[name] for name in whole if name not in {*labels, *drop}}
    if not inputs:
        raise ValueError("columns: no input is left. Expected a column other than label and drop")
    rows = {
        "train": _rows(inputs, divided.train),
        "validation": _rows(inputs, divided.validation),
        "test": _rows(inputs, divided.test),
    }
    encoder = TableEncoder(rows["train"], categorical, min_count, standardize)
    notes = _notes(rows, encoder, categorical)
    features = {split: encoder.encode(part) for split, part in rows.items()}
    labelled = {"train": divided.train, "validation": divided.validation, "test": divided.test}
    if munge:
        synthetic = munge_rows(features["train"], encoder.features, munge, swap, scale)
        features["train"] = torch.cat([features["train"], synthetic])
    moments = _label_moments(divided.train, standardize)
    train, validation, test = (
        _encoded(labelled[split], features[split], encoder, moments) for split in labelled
    )
    return Splits(train, validation, test, train.classes, train.kind, tuple(notes))


def _notes(
    rows: Mapping[str, Table], encoder: TableEncoder, categorical: Sequence[str]
) -> list[str]:
    """Sentences about columns that have categories because of a few texts, and held-out values."""
    notes: list[str] = []
    for feature in encoder.features:
        name = feature.name
        if feature.categories is None or name in categorical:
            continue
        present = [value for value in rows["train"][name] if not is_missing(value)]
        others = [value for value in present if not is_number(value)]
        if 2 * len(others) < len(present):
            notes.append(
                f"column '{name}' of train: {len(others)} of {len(present)} values are not "
                f"numeric, such as {others[0]!r}, so that all are categories. Correct or empty "
                f"them for a column of numbers, or set categorical: [{name}]"
            )
    for split in ("validation", "test"):
        notes += encoder.surprises(rows[split], split)
    return notes


def _parts(samples: Samples, tables: Mapping[str, Table]) -> dict[str, Samples]:
    """Samples of each table, of those of all tables in their order."""
    parts: dict[str, Samples] = {}
    start = 0
    for split, table in tables.items():
        length = len(next(iter(table.values())))
        parts[split] = samples.subset(torch.arange(start, start + length))
        parts[split].index = torch.arange(length)
        start += length
    return parts


def _check_names(table: Table, names: Sequence[str], option: str) -> None:
    for name in names:
        if name not in table:
            raise ValueError(
                f"{option}: no column '{name}'. The table has {', '.join(table)}."
                f"{did_you_mean(name, table)}"
            )


def _joined(tables: Mapping[str, Table]) -> dict[str, list[Any]]:
    """Rows of all splits; all have the columns of the first one."""
    first = next(iter(tables.values()))
    whole: dict[str, list[Any]] = {name: [] for name in first}
    for split, part in tables.items():
        for name in first:
            if name not in part:
                raise ValueError(
                    f"files.{split}: no column '{name}'. Expected the columns of the training "
                    f"files.{suggestion(name, part)}"
                )
            whole[name] += list(part[name])
    return whole


def _labelled_indices(
    table: Table, label: str | Sequence[str], classes: Sequence[str] | None, task_name: str
) -> Samples:
    """Samples whose input is the number of their row."""
    names = [label] if isinstance(label, str) else list(label)
    row = {KEY: torch.arange(len(table[names[0]]))}
    if task_name == REGRESSION:
        return RealTableData(row, number_labels(table, names), names)
    if isinstance(label, str):
        indices, class_names = class_labels(table[label], classes)
        return TableData(row, indices, class_names)
    return TableData(row, number_labels(table, names), classes or names)


def _rows(table: Mapping[str, list[Any]], samples: Samples) -> dict[str, list[Any]]:
    assert isinstance(samples, TensorData)
    rows = samples.tensors[KEY].tolist()
    return {name: [values[row] for row in rows] for name, values in table.items()}


def _label_moments(train: Samples, standardize: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of real labels; 0 and 1 for classes."""
    width = train.label.shape[1] if train.label.ndim == 2 else 1
    mean, std = torch.zeros(width), torch.ones(width)
    if not (standardize and isinstance(train, RealTableData)):
        return mean, std
    for column in range(width):
        values = train.label[:, column]
        present = values[values != UNLABELLED].double()
        if len(present) > 1:
            mean[column] = present.mean()
            std[column] = present.std(correction=0) or 1.0
    return mean, std


def _encoded(
    samples: Samples, features: Tensor, encoder: TableEncoder, moments: tuple[Tensor, Tensor]
) -> TableData | RealTableData:
    """Samples with encoded rows; rows beyond those of ``samples`` are synthetic."""
    count = len(features) - len(samples)
    missing = samples.label.new_full((count, *samples.label.shape[1:]), UNLABELLED)
    label = torch.cat([samples.label, missing])
    mean, std = moments
    raw_rows = RawRows(encoder, mean, std)
    facts = {"features": encoder.width, FACT: raw_rows.to_json()}
    data: TableData | RealTableData
    if isinstance(samples, RealTableData):
        label = torch.where(label == UNLABELLED, label, (label - mean) / std)
        data = RealTableData({KEY: features}, label, samples.classes, facts)
        data.label_mean = mean
        data.label_std = std
    else:
        data = TableData({KEY: features}, label, samples.classes, facts)
    data.encoder = encoder
    data.source_split = samples.source_split
    data.origin = torch.cat([samples.origin, samples.origin.repeat(count // len(samples))])
    return data
