"""Columns of values: arrays of numbers, or lists of sequences and texts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.pictures import DEEP_MODES, Size, pictures

Column = NDArray[Any] | list[Any]
"""Numbers as an array (N, ...); sequences of different lengths and texts as a list."""
SCALES = {np.dtype(np.uint8): np.float32(255), np.dtype(np.float32): np.float32(1)}
"""Largest values of pictures of 8 and 16 bits."""


def column_of(values: Sequence[Any], key: str, size: Size = None) -> Column:
    """Convert the values of one column.

    Args:
        values: numbers, nested lists, texts, or pictures (``bytes``, ``{"bytes": ...}`` or PIL).
            None is a missing value, which only ``label`` and ``box`` may have.
        key: batch key of the column, for messages.
        size: height and width of pictures, or one number for both; None for no resizing.

    Returns:
        An array (N, ...) with -100 for missing values; or a list of texts, or of arrays of
        different lengths with None for missing ones.

    Raises:
        ValueError: for a missing value, a damaged picture, and values of different types.
    """
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None and key not in ("label", "box"):
        raise ValueError(f"row {missing} has no value. Expected a value in every row")
    first = next((value for value in values if value is not None), None)
    if isinstance(first, str):
        return _texts(values)
    if isinstance(first, (bytes, Mapping)) or hasattr(first, "getdata"):
        return _stacked(_pictures(values, size))
    if not isinstance(first, (list, tuple, np.ndarray)):
        return _numbers([UNLABELLED if value is None else value for value in values])
    return _filled([None if value is None else _numbers(value) for value in values])


def _filled(arrays: list[NDArray[Any] | None]) -> Column:
    """One array with -100 in missing rows if the others have one shape, else the list."""
    present = [array for array in arrays if array is not None]
    if len({array.shape for array in present}) > 1:
        return arrays
    filler = np.full_like(present[0], UNLABELLED, np.result_type(present[0], np.int8))
    return np.stack([filler if array is None else array for array in arrays])


def _texts(values: Sequence[Any]) -> list[Any]:
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"row {row} is {type(value).__name__}. Expected a text, as before")
    return ["" if value is None else value for value in values]


def _numbers(value: Any) -> NDArray[Any]:
    """An array of numbers."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError("its lists differ in length below the first level") from error
    if array.dtype.kind not in "biuf" and array.size:
        raise ValueError(f"its values are {array.dtype}. Expected numbers")
    return array


def _stacked(arrays: list[NDArray[Any]]) -> Column:
    """One array for arrays of one shape, else the list."""
    if len({array.shape for array in arrays}) == 1:
        stacked: NDArray[Any] = np.stack(arrays)
        return stacked
    return list(arrays)


def _pictures(values: Sequence[Any], size: Size) -> list[NDArray[Any]]:
    """All pictures of a column, in one type."""
    decoded = [_picture(value, row, size) for row, value in enumerate(values)]
    if len({array.dtype for array in decoded}) > 1:
        # Pictures of 16 bits are floating point, next to those of 8 bits.
        decoded = [array / SCALES[array.dtype] for array in decoded]
    return decoded


def _picture(value: Any, row: int, size: Size) -> NDArray[Any]:
    """An encoded picture, or a PIL image, as uint8 (C, H, W); float32 for one of 16 bits."""
    from PIL import Image

    content = value.get("bytes") if isinstance(value, Mapping) else value
    try:
        image: Any = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
        channels = 1 if image.mode in ("L", *DEEP_MODES) else 3
        array: NDArray[Any] = np.array(pictures(lambda _row: image, channels, size)(0))
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"row {row} cannot be read as a picture: {error}") from error
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def check_lengths(lengths: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Check that each key of ``lengths`` is one of ``columns``.

    Raises:
        ValueError: for another key.
    """
    check_option_keys("lengths", lengths, columns)


def check_option_keys(
    option: str, values: Mapping[str, object], columns: Mapping[str, str]
) -> None:
    """Check that each key of an option is one of ``columns``.

    Args:
        option: name of the option, for messages.
        values: values of the option by batch key.
        columns: columns by batch key.

    Raises:
        ValueError: for another key.
    """
    for key in values:
        if key not in columns:
            raise ValueError(f"{option}.{key}: no such column.{suggestion(key, columns)}")


def split_rows(
    array: NDArray[Any], arrays: Mapping[str, NDArray[Any]], key: str, name: str
) -> list[NDArray[Any]]:
    """Split an array in which the samples follow one another.

    Args:
        array: (all rows, ...).
        arrays: all arrays of the file.
        key: batch key of the array, for messages.
        name: name of the array (N,) with the number of rows of each sample.

    Raises:
        ValueError: if the lengths are missing, or do not add up to the rows of the array.
    """
    if name not in arrays:
        raise ValueError(f"lengths.{key}: no array '{name}'.{suggestion(name, arrays)}")
    lengths = arrays[name]
    is_count = lengths.ndim == 1 and lengths.dtype.kind in "iu" and bool((lengths >= 0).all())
    if not is_count or int(lengths.sum()) != len(array):
        raise ValueError(
            f"lengths.{key}: '{name}' does not divide the {len(array)} rows. Expected whole "
            "numbers >= 0 whose sum is the number of rows"
        )
    return np.split(array, np.cumsum(lengths)[:-1])


def joined(parts: Sequence[tuple[str, Column]]) -> Column:
    """Join the parts of a column that come from several files.

    Args:
        parts: name of the file and values.

    Raises:
        ValueError: if a file has values of another type or shape than the first one.
    """
    origin = parts[0][0]
    if all(isinstance(part, np.ndarray) for _, part in parts):
        arrays = [part for _, part in parts if isinstance(part, np.ndarray)]
        for (other, _), array in zip(parts, arrays, strict=True):
            if array.ndim != arrays[0].ndim or array.dtype.kind != arrays[0].dtype.kind:
                raise ValueError(
                    f"{other}: values are {array.dtype} {array.shape[1:]}. Expected "
                    f"{arrays[0].dtype} {arrays[0].shape[1:]}, as in {origin}"
                )
        if len({array.shape[1:] for array in arrays}) == 1:
            whole: NDArray[Any] = np.concatenate(arrays)
            return whole
    for other, part in parts:
        if is_text(part) != is_text(parts[0][1]):
            raise ValueError(f"{other}: texts and numbers are mixed. Expected those of {origin}")
    rows: list[Any] = []
    for _, part in parts:
        rows += list(part)
    return rows


def is_text(column: Column) -> bool:
    """Whether a column holds texts."""
    return isinstance(column, list) and any(isinstance(value, str) for value in column)


def is_missing_row(row: Any) -> bool:
    """Whether a sample has no label.

    Args:
        row: numbers of a column of labels; None or only -100 for no label.
    """
    return row is None or (np.size(row) > 0 and bool(np.all(np.asarray(row) == UNLABELLED)))


def check_finite(key: str, value: Tensor) -> None:
    """Check that an input has no NaN and no infinite values.

    Args:
        key: batch key, for the message.
        value: (N, ...).

    Raises:
        ValueError: for a row with such a value.
    """
    if not value.is_floating_point() or bool(value.isfinite().all()):
        return
    is_finite = value.isfinite().reshape(len(value), -1).all(1)
    row = int((~is_finite).nonzero()[0])
    raise ValueError(
        f"columns.{key}: row {row} has NaN or infinite values. Expected finite numbers. Replace "
        "these values, or remove the row"
    )
