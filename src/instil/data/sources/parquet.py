"""Source ``parquet``: columns of Parquet files as any keys of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from instil.data.column_samples import ClassesOption, LabelsOption
from instil.data.pictures import SizeOption
from instil.data.row_groups import RowGroups
from instil.data.samples import Samples
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.tables import Files, files_of, read_parquet, table_splits


def parquet(
    files: Annotated[
        Files,
        Doc("file or pattern (`part-*.parquet`), or files by split (train, validation, test)"),
    ],
    columns: Annotated[dict[str, str], Doc("column of each batch key, such as `{image: img}`")],
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    in_memory: Annotated[
        bool, Doc("whether the data are read at once; false: by row group, when needed")
    ] = True,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Columns of Parquet files, read with pyarrow into memory or by row group.

    ``columns`` maps batch keys to columns. ``label`` is the label, and without it the samples have
    none; all other keys are inputs. A column holds numbers, nested lists of one shape, lists of
    numbers of different lengths (padded with 0, with ``KEY_length``) or encoded pictures.

    The option ``labels`` sets the kind of the labels. By default their type decides:

    - ``single``: whole numbers and texts, which are the names of classes;
    - ``multi``: numbers in [0, 1] for each class;
    - ``real``: other real numbers;
    - ``sequence``: lists of whole numbers; ``boxes``: the same with the key ``box``.

    A null label marks a sample without a label.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and wrong values.
    """
    shares = (validation, test)
    paths = files_of(files, base)
    if not in_memory:
        parts: dict[str, Samples] = {}
        for split, part in paths.items():
            parts[split] = RowGroups(part, columns, classes, labels, size, task_name)
            classes = classes or list(parts[split].classes) or None
        return splits(parts, *shares)
    return table_splits(paths, read_parquet, columns, classes, labels, size, shares, task_name)
