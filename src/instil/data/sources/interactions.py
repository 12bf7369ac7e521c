"""Source ``interactions``: items that users chose, from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from typing_extensions import Doc

from instil.data.interactions import MIN_ITEMS, interaction_splits
from instil.data.paths import located
from instil.data.splits import Splits
from instil.data.tables import check_columns

Table = NDArray[Any]


FileOption = Annotated[
    str,
    Doc("file .npz with the arrays user, item and optionally grade, or a table .tsv or .csv"),
]
MinGradeOption = Annotated[
    float | None, Doc("smallest grade of a chosen item, which gets grade 1; null: no limit")
]
MinItemsOption = Annotated[
    int, Ge(3), Doc("users with fewer items are left out; at least 2 held_out + 1")
]
HeldOutOption = Annotated[
    int, Ge(1), Doc("items of each user for validation, and the same number for test")
]


def interactions(
    file: FileOption,
    user: Annotated[str, Doc("column of the user, a number or a name")] = "user",
    item: Annotated[str, Doc("column of the item, a number or a name")] = "item",
    grade: Annotated[str | None, Doc("column of the grade; null: each row has grade 1")] = None,
    min_grade: MinGradeOption = None,
    min_items: MinItemsOption = MIN_ITEMS,
    held_out: HeldOutOption = 1,
    base: Path = Path(),
) -> Splits:
    """Interactions of users and items, one per row; the first line of a table names the columns.

    Samples are those of the task ``recommendation``: a user, and the grade of each item.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and users without items.
    """
    path = located(file, base)
    names = [name for name in (user, item, grade) if name is not None]
    columns = _read_npz(path, names) if path.suffix == ".npz" else _read_table(path, names)
    users, items = columns[user], columns[item]
    values = np.ones(len(users), np.float32)
    if grade is not None:
        values = _grades(columns[grade], path, grade)
    if min_grade is not None:
        is_chosen = values >= min_grade
        users, items = users[is_chosen], items[is_chosen]
        values = np.ones(len(users), np.float32)
    names_of_users, counts = np.unique(users, return_counts=True)
    is_used = np.isin(users, names_of_users[counts >= min_items])
    if not is_used.any():
        raise ValueError(
            f"min_items: no user of {path} has {min_items} items; the largest number is "
            f"{int(counts.max(initial=0))}. Lower min_items"
        )
    user_index = np.unique(users[is_used], return_inverse=True)[1]
    item_index = np.unique(items[is_used], return_inverse=True)[1]
    result = interaction_splits(
        torch.from_numpy(user_index),
        torch.from_numpy(item_index),
        torch.from_numpy(values[is_used]),
        held_out,
    )
    left_out = int((counts < min_items).sum())
    if not left_out:
        return result
    note = f"{left_out} users with fewer than {min_items} items are left out"
    return Splits(
        result.train, result.validation, result.test, result.classes, result.kind, (note,)
    )


def _grades(values: Table, path: Path, name: str) -> Table:
    try:
        grades = values.astype(np.float32)
    except ValueError as error:
        raise ValueError(f"grade: column '{name}' of {path} is not numeric: {error}") from error
    if not (np.isfinite(grades) & (grades > 0)).all():
        raise ValueError(
            f"grade: column '{name}' of {path} has values that are not finite and above 0. "
            "Remove those rows"
        )
    return grades


def _read_npz(path: Path, names: list[str]) -> dict[str, Table]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            check_columns(path, names, list(arrays), "file")
            columns = {name: arrays[name] for name in names}
    except OSError as error:
        raise ValueError(f"file: {path} cannot be read: {error}") from error
    if len({column.shape for column in columns.values()}) > 1 or columns[names[0]].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise ValueError(f"file: {path} has {shapes}. Expected one shape (interactions,)")
    return columns


def _read_table(path: Path, names: list[str]) -> dict[str, Table]:
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        # Some programs write a byte order mark; names may contain separators such as U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"file: {path} cannot be read: {error}") from error
    # RecBole writes the type after the name of a column: ``user_id:token``.
    header = [name.partition(":")[0] for name in lines[0].split(separator)] if lines else []
    check_columns(path, names, header, "file")
    rows = [line.split(separator) for line in lines[1:] if line]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(
                f"file: {path}, line {line} has {len(row)} values. Expected {len(header)}, as in "
                "the first line"
            )
    return {name: np.array([row[header.index(name)] for row in rows]) for name in names}
