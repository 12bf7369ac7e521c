"""Source ``table``: rows with numbers and categories from CSV, Parquet, JSON Lines or NumPy."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from instil.data.archive import read_arrays
from instil.data.column_samples import ClassesOption
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.table_encoder import Table
from instil.data.table_numbers import as_number
from instil.data.tables import Files, check_columns, files_of, import_parquet, jsonl_rows
from instil.data.tabular import (
    MinCountOption,
    MungeOption,
    ScaleOption,
    StandardizeOption,
    SwapOption,
    table_data,
)

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "None")
"""Texts of a CSV file that are missing values."""


def table(
    files: Annotated[
        Files,
        Doc(
            "file or pattern (.csv, .tsv, .parquet, .jsonl, .npz), or files by split (train, "
            "validation, test)"
        ),
    ],
    label: Annotated[
        str | list[str],
        Doc("column of the label; several ones: real numbers, or yes or no (1, 0) for each class"),
    ],
    drop: Annotated[list[str] | None, Doc("columns to leave out; null: none")] = None,
    categorical: Annotated[
        list[str] | None, Doc("columns of numbers that are categories; those of texts always are")
    ] = None,
    classes: ClassesOption = None,
    min_count: MinCountOption = 1,
    standardize: StandardizeOption = True,
    munge: MungeOption = 0,
    swap: SwapOption = 0.5,
    scale: ScaleOption = 1.0,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Rows of a table as the batch key ``features``, for the tabular tasks.

    Columns of numbers are standardized, and columns of texts become one column per category, with
    the statistics of the training rows. Empty values, ``NA``, ``NaN``, ``null`` and ``?`` are
    missing: a number is then the mean, with a column that marks it, and a category has its own
    column. Of labels that are names, only an empty one is missing. An unknown category has 0 in all
    columns, or is ``other`` if ``min_count`` is above 1.

    With ``munge``, the training rows are followed by synthetic rows without a label (MUNGE), for
    which the student learns the outputs of the teacher.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe; the labels of ``tabular_regression`` are real numbers.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and wrong values.
    """
    labels = [label] if isinstance(label, str) else label
    tables = {split: _read(paths, labels) for split, paths in files_of(files, base).items()}
    return table_data(
        tables,
        label,
        (validation, test),
        task_name,
        classes=classes,
        drop=drop or (),
        categorical=categorical or (),
        min_count=min_count,
        standardize=standardize,
        munge=munge,
        swap=swap,
        scale=scale,
    )


def read_table(
    path: Path, texts: Collection[str] = (), classes: Collection[str] = ()
) -> dict[str, list[Any]]:
    """Return the columns of a file by name.

    In other columns of a CSV file than ``texts``, some texts are missing values, and a column whose
    values are all numbers has numbers.

    Args:
        path: a file that ends in ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or ``.npz``.
        texts: columns of a CSV file that have texts, even if all of them are numbers.
        classes: columns of a CSV file with names of classes. If they are not all numbers, only an
            empty one is missing: ``None`` is a name.

    Raises:
        ValueError: for another ending, and a file that cannot be read.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise ValueError(
            f"files: {path.name} has an unknown ending. Expected one of {', '.join(READERS)}"
        )
    columns: dict[str, list[Any]] = READERS[ending](path)
    if READERS[ending] is _read_csv:
        parsed = {name: _parsed(columns[name], name in classes) for name in columns}
        columns |= {name: parsed[name] for name in columns if name not in texts}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"{path}: columns have {sorted(lengths)} rows. Expected one length")
    return columns


def _read(paths: Sequence[Path], labels: Sequence[str]) -> Table:
    """Return the rows of several files, which have the columns of the label."""
    parts = [(path, read_table(path, classes=labels)) for path in paths]
    for path, columns in parts:
        check_columns(path, labels, columns, "label")
    return _joined(parts)


def _joined(parts: list[tuple[Path, dict[str, list[Any]]]]) -> dict[str, list[Any]]:
    _, whole = parts[0]
    for path, part in parts[1:]:
        if set(part) != set(whole):
            different = ", ".join(sorted(set(part) ^ set(whole)))
            raise ValueError(f"{path}: columns differ from {parts[0][0]}: {different}")
        for name, values in part.items():
            whole[name] += values
    return whole


def _read_csv(path: Path) -> dict[str, list[Any]]:
    """Texts of a file with a header."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a CSV file: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty. Expected a header with the names of the columns")
    header = rows.pop(0)
    rows = [row for row in rows if row]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: the column '{repeated[0]}' exists twice. Expected unique names")
    for line, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: row {line} has {len(row)} values. Expected {len(header)}, as in the "
                "header"
            )
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _parsed(texts: list[str], has_classes: bool) -> list[Any]:
    """Numbers if all values that are not missing are numbers, else texts."""
    values = [None if text.strip() in MISSING else text.strip() for text in texts]
    try:
        numbers = [None if value is None else as_number(value) for value in values]
    except ValueError:
        numbers = []
    if any(value is not None for value in numbers):
        return numbers
    return [text.strip() or None for text in texts] if has_classes else list(values)


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    parquet = import_parquet()
    import pyarrow  # type: ignore[import-untyped]

    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    return columns


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    rows = list(jsonl_rows(path))
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_npz(path: Path) -> dict[str, list[Any]]:
    """Arrays (N,) are columns, arrays (N, D) the columns ``NAME_0`` to ``NAME_D-1``."""
    columns: dict[str, list[Any]] = {}
    for name, array in read_arrays(path).items():
        if array.ndim == 2:
            columns |= {f"{name}_{i}": array[:, i].tolist() for i in range(array.shape[1])}
        elif array.ndim == 1:
            columns[name] = array.tolist()
        else:
            raise ValueError(f"{path}: '{name}' has the shape {array.shape}. Expected (N,), (N, D)")
    return columns


READERS: Mapping[str, Any] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".npz": _read_npz,
}
"""Function that reads the columns of a file, by its ending."""
