"""Columns of Parquet and JSON Lines files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from instil.cards import suggestion
from instil.cards.closest import did_you_mean
from instil.data.column_samples import LabelKind, column_samples
from instil.data.columns import Column, column_of, joined
from instil.data.paths import located
from instil.data.pictures import Size
from instil.data.splits import Splits, numbered, splits

Files = str | dict[str, str | list[str]]
"""A file, a pattern such as ``part-*.parquet``, or such files by split."""

SPLITS = ("train", "validation", "test")


def files_of(files: Files, base: Path, option: str = "files") -> dict[str, list[Path]]:
    """Return the existing files of each split.

    Args:
        files: a file or pattern, or files and patterns by split.
        base: folder that relative paths start from.
        option: name of the option, for messages.

    Raises:
        ValueError: for another split, and a file or pattern without a file.
    """
    by_split = {"train": files} if isinstance(files, str) else files
    paths: dict[str, list[Path]] = {}
    for split, names in by_split.items():
        if split not in SPLITS:
            raise ValueError(
                f"{option}.{split}: there is no such split.{suggestion(split, SPLITS)}"
            )
        paths[split] = []
        for name in [names] if isinstance(names, str) else names:
            if "*" in name:
                paths[split] += _matching(name, base, option)
            else:
                paths[split].append(located(name, base))
    return paths


def _matching(pattern: str, base: Path, option: str) -> list[Path]:
    folder = base / Path(pattern).expanduser().parent
    files = sorted(folder.glob(Path(pattern).name))
    if not files:
        raise ValueError(f"{option}: no file matches {Path(pattern).name} in {folder.resolve()}")
    return files


def table_splits(
    paths: Mapping[str, list[Path]],
    read: Any,
    columns: Mapping[str, str],
    classes: list[str] | None,
    kind: LabelKind | None,
    size: Size,
    shares: tuple[float, float],
    task_name: str,
) -> Splits:
    """Return the train, validation and test data of files.

    Args:
        paths: files of each split.
        read: function ``(path, names of columns) -> values by name of column``.
        columns: column of each batch key.
        classes: names of the classes; None: found in the labels.
        kind: kind of the labels; None: found by their type.
        size: height and width of pictures; None for no resizing.
        shares: shares of the training data for missing validation and test data.
        task_name: task of the recipe.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and wrong values.
    """
    parts: dict[str, list[tuple[str, Column]]] = {key: [] for key in columns}
    lengths: dict[str, int] = {}
    for split, files in paths.items():
        lengths[split] = 0
        for path in files:
            table = read(path, list(columns.values()))
            for key, name in columns.items():
                values = _converted(path, key, name, table[name], size)
                parts[key].append((str(path), values))
            lengths[split] += len(values)
    return _divided(parts, lengths, classes, kind, shares, task_name)


def column_splits(
    by_split: Mapping[str, Mapping[str, Column]],
    classes: list[str] | None,
    kind: LabelKind | None,
    shares: tuple[float, float],
    task_name: str,
) -> Splits:
    """Return the train, validation and test data of columns.

    Args:
        by_split: values by batch key, for each split.
        classes: names of the classes; None: found in the labels.
        kind: kind of the labels; None: found by their type.
        shares: shares of the training data for missing validation and test data.
        task_name: task of the recipe.

    Raises:
        ValueError: for wrong values.
    """
    parts: dict[str, list[tuple[str, Column]]] = {}
    lengths: dict[str, int] = {}
    for split, columns in by_split.items():
        for key, values in columns.items():
            parts.setdefault(key, []).append((split, values))
            lengths[split] = len(values)
    return _divided(parts, lengths, classes, kind, shares, task_name)


def _divided(
    parts: Mapping[str, list[tuple[str, Column]]],
    lengths: Mapping[str, int],
    classes: list[str] | None,
    kind: LabelKind | None,
    shares: tuple[float, float],
    task_name: str,
) -> Splits:
    """Splits of columns that hold the samples of all splits, one after another."""
    whole = column_samples(
        {key: joined(column) for key, column in parts.items()}, classes, kind, task_name
    )
    start = 0
    data = {}
    for split, length in lengths.items():
        data[split] = numbered(whole, torch.arange(start, start + length))
        # Rows of a split are counted from the start of its own files.
        data[split].origin = torch.arange(length)
        start += length
    return splits(data, *shares)


def _converted(path: Path, key: str, name: str, values: Any, size: Size) -> Column:
    try:
        return column_of(values, key, size)
    except ValueError as error:
        raise ValueError(f"{path}: column '{name}': {error}") from error


def check_columns(
    path: Path, names: Iterable[str], present: Collection[str], option: str = "columns"
) -> None:
    """Check that a file has all columns of a recipe.

    Args:
        path: the file, for the message.
        names: columns of the recipe.
        present: columns of the file.
        option: option that names the columns, for the message.

    Raises:
        ValueError: for a column that the file does not have.
    """
    line = "".join(present)
    if len(present) == 1 and line not in names and (";" in line or "\t" in line):
        raise ValueError(f"{option}: {path} has no commas between the columns '{line}'")
    for name in names:
        if name not in present:
            raise ValueError(
                f"{option}: {path} has no column '{name}'. It has {', '.join(present) or 'none'}."
                f"{did_you_mean(name, present)}"
            )


def read_parquet(path: Path, names: list[str]) -> dict[str, Any]:
    """Return columns of a Parquet file.

    Raises:
        ValueError: without pyarrow, for a file that cannot be read, and a missing column.
    """
    parquet = import_parquet()
    import pyarrow  # type: ignore[import-untyped]

    try:
        check_columns(path, names, parquet.read_schema(path).names)
        table = parquet.read_table(path, columns=names)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    return {name: table[name].to_pylist() for name in names}


def import_parquet() -> Any:
    """Return the module ``pyarrow.parquet``.

    Raises:
        ValueError: if pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            'parquet: the package pyarrow is not installed. Install it with pip install "instil'
            '[tables]"'
        ) from error
    return parquet


def read_jsonl(path: Path, names: list[str]) -> dict[str, list[Any]]:
    """Return columns of a JSON Lines file; a key that a line lacks is a missing value.

    Raises:
        ValueError: for lines that are not JSON objects, and a column that no line has.
    """
    rows = list(jsonl_rows(path))
    present: dict[str, None] = {}
    for row in rows:
        present |= dict.fromkeys(row)
    check_columns(path, names, list(present))
    return {name: [row.get(name) for row in rows] for name in names}


def jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file.

    Raises:
        ValueError: for a line that is not a JSON object, with its number.
    """
    line_number = 0
    try:
        # Some programs write a byte order mark in front of the first line.
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                line_number += 1
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"expected an object, got {type(row).__name__}")
                yield row
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        where = f", line {line_number}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{path}{where}: the line is not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}, line {line_number}: {error}") from error
