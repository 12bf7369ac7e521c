"""Splits and columns of data sets of ``datasets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.cards import suggestion

NAMES = {
    "train": ("train",),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
"""Names of each split in a data set; the last one that exists is used."""
LABELS = ("label", "labels", "fine_label", "target")
"""Names of label columns, in order of preference."""


def named_parts(loaded: Any, path: str) -> dict[str, Any]:
    """Return the train, validation and test part of a data set.

    Args:
        loaded: the data set, or its splits by name.
        path: name of the data set, for messages.

    Raises:
        ValueError: without a train split.
    """
    sets = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    parts = {}
    for name, entries in NAMES.items():
        for entry in entries:
            if entry in sets:
                parts[name] = sets[entry]
    if "train" not in parts:
        raise ValueError(f"'{path}' has no train split, only {', '.join(map(str, sets))}")
    return parts


def check_column_names(columns: Mapping[str, str], features: Mapping[str, Any], path: str) -> None:
    """Check that a data set has all columns.

    Args:
        columns: column of each batch key.
        features: columns that exist.
        path: name of the data set, for messages.

    Raises:
        ValueError: for a column that it does not have.
    """
    for column in columns.values():
        if column not in features:
            raise ValueError(f"'{path}' has no column '{column}'.{suggestion(column, features)}")


def image_column(features: Mapping[str, Any]) -> str:
    """Return the only column of type Image.

    Args:
        features: columns by name, with their types.

    Raises:
        ValueError: if there is none, or several.
    """
    columns = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    return _only_column(columns, "image", features, ())


def label_column(features: Mapping[str, Any]) -> str:
    """Return the column of the labels, by its type or else its name.

    Args:
        features: columns by name, with their types.

    Raises:
        ValueError: if there is none, or several.
    """
    columns = [name for name, feature in features.items() if class_names(feature)]
    columns = columns or [name for name in LABELS if name in features]
    return _only_column(columns, "label", features, LABELS)


def _only_column(
    columns: list[str], option: str, features: Mapping[str, Any], preferred: tuple[str, ...]
) -> str:
    """The only candidate, or the first preferred one of several."""
    if len(columns) > 1:
        columns = [name for name in preferred if name in columns][:1] or columns
    if len(columns) == 1:
        return columns[0]
    problem = f"no column is the {option}"
    if columns:
        problem = f"several columns could be the {option} ({', '.join(columns)})"
    raise ValueError(
        f"{option}: {problem}. Name the column with `{option}`; the columns are "
        f"{', '.join(features)}"
    )


def class_names(feature: Any) -> list[str]:
    """Return the class names of a column of classes, or of lists of classes."""
    of_items = getattr(getattr(feature, "feature", None), "names", None)
    return list(getattr(feature, "names", None) or of_items or ())
