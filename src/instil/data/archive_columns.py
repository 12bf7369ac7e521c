"""Samples from the arrays of an archive that are mapped to batch keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from instil.cards import suggestion
from instil.data.column_samples import LabelKind, column_samples
from instil.data.columns import Column, check_lengths, check_option_keys, split_rows
from instil.data.samples import Samples

Arrays = Mapping[str, NDArray[np.generic]]


def archive_samples(
    arrays: Arrays,
    columns: Mapping[str, str],
    lengths: Mapping[str, str],
    axes: Mapping[str, Sequence[int]],
    classes: Sequence[str] | None,
    labels: LabelKind | None,
    task_name: str,
) -> Samples:
    """Return all samples of an archive whose arrays are mapped to batch keys.

    Args:
        arrays: arrays by name.
        columns: name of the array of each batch key.
        lengths: name of the array with the rows of each sample, for arrays that join all samples.
        axes: order of the dimensions of an array, for arrays in another order.
        classes: names of the classes; None: the texts of the labels, or their indices.
        labels: kind of the labels; None: found by their type.
        task_name: task of the recipe.

    Raises:
        ValueError: for a missing array, and options that do not fit the arrays.
    """
    values: dict[str, Column] = {}
    check_lengths(lengths, columns)
    check_option_keys("axes", axes, columns)
    for key, name in columns.items():
        if name not in arrays:
            raise ValueError(f"columns.{key}: no array '{name}'.{suggestion(name, arrays)}")
        array = arrays[name]
        is_text = array.dtype.kind in "US"
        column: Column = [str(text) for text in array.tolist()] if is_text else array
        if key in lengths:
            column = split_rows(array, arrays, key, lengths[key])
        values[key] = _transposed(column, key, axes[key]) if key in axes else column
    return column_samples(values, classes, labels, task_name)


def _transposed(column: Column, key: str, order: Sequence[int]) -> Column:
    """A column with its dimensions in another order; joined samples are padded with 0 first."""
    array = _padded(column) if isinstance(column, list) else column
    if sorted(order) != list(range(array.ndim)) or order[0] != 0:
        raise ValueError(
            f"axes.{key}: {list(order)} does not order the dimensions of {array.shape}. "
            f"Expected the numbers 0 to {array.ndim - 1}, with the samples first"
        )
    return np.transpose(array, order)


def _padded(rows: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    longest = max(len(row) for row in rows)
    padded = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
