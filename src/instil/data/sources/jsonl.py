"""Source ``jsonl``: fields of JSON Lines files as any keys of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from instil.data.column_samples import ClassesOption, LabelsOption
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.tables import Files, files_of, read_jsonl, table_splits


def jsonl(
    files: Annotated[
        Files,
        Doc("file or pattern such as `part-*.jsonl`, or files by split (train, validation, test)"),
    ],
    columns: Annotated[dict[str, str], Doc("field of each batch key, such as `{points: xyz}`")],
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Fields of JSON Lines files, one object per line, read into memory.

    ``columns`` maps batch keys to fields, as for the source ``parquet``. A label that is null or
    missing is none; every other field must have a value in each line.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing field, and wrong values.
    """
    shares = (validation, test)
    paths = files_of(files, base)
    return table_splits(paths, read_jsonl, columns, classes, labels, None, shares, task_name)
