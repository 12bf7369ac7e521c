"""Arrays of a graph in a NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from instil.cards.closest import did_you_mean

Arrays = Mapping[str, NDArray[np.generic]]


def array(arrays: Arrays, name: str, option: str) -> NDArray[np.generic]:
    """Return the array of an option.

    Args:
        arrays: arrays of the file by name.
        name: name of the array.
        option: name of the option, for the message.

    Raises:
        ValueError: for a missing array.
    """
    if name not in arrays:
        raise ValueError(
            f"{option}: no array '{name}'. The file has {', '.join(arrays) or 'nothing'}."
            f"{did_you_mean(name, arrays)}"
        )
    return arrays[name]


def edge_array(arrays: Arrays, names: str | Sequence[str]) -> NDArray[np.int64]:
    """Return one array (2, E) of edges, or several of them, joined.

    Args:
        arrays: arrays of the file by name.
        names: name or names of the arrays.

    Raises:
        ValueError: for a missing array, and values that are not whole numbers.
    """
    several = [names] if isinstance(names, str) else names
    joined = [_whole(array(arrays, name, "edges"), "edges", "node numbers") for name in several]
    if any(part.ndim != 2 for part in joined):
        shapes = ", ".join(str(part.shape) for part in joined)
        raise ValueError(f"edges: shape {shapes}. Expected (2, E): source and target of each edge")
    return np.concatenate(joined, axis=1)


def label_array(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return class indices as int64 (N,), or labels of several classes as float32 (N, C).

    Args:
        values: the array of the file.

    Raises:
        ValueError: for texts, and class indices that are not whole numbers.
    """
    if values.dtype.kind not in "iufb":
        raise ValueError(
            f"label: values of type {values.dtype}. Expected class indices, -100 for no label. "
            "Save the indices, and the names of the classes in the array 'classes'"
        )
    if values.ndim == 2:
        return values.astype(np.float32)
    return _whole(values, "label", "class indices, -100 for no label")


def split_array(values: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    """Return the number of the split of each item; -1 marks items of no split.

    Args:
        values: the array of the file.
        count: number of items.

    Raises:
        ValueError: for another length, and values other than -1, 0, 1 and 2.
    """
    is_known = values.dtype.kind in "iufb" and bool(np.isin(values, (-1, 0, 1, 2)).all())
    if values.shape != (count,) or not is_known:
        others = [] if is_known else [str(value) for value in np.unique(values)[:5].tolist()]
        got = f"values such as {', '.join(others)}" if others else f"shape {values.shape}"
        raise ValueError(
            "split: expected 0 (train), 1 (validation), 2 (test) or -1 (none) for each of the "
            f"{count} items, got {got}"
        )
    return values.astype(np.int64)


def _whole(values: NDArray[np.generic], name: str, expected: str) -> NDArray[np.int64]:
    """Values as int64; raises ValueError if they are not whole numbers."""
    is_number = values.dtype.kind in "iufb"
    if not is_number or not np.array_equal(values, np.trunc(values.astype(np.float64))):
        raise ValueError(f"{name}: values that are not whole numbers. Expected {expected}")
    return values.astype(np.int64)


def feature_array(arrays: Arrays, name: str) -> NDArray[np.float32]:
    """Return the features (M, F), or those whose rows ``name_indptr`` and ``name_indices`` hold.

    Args:
        arrays: arrays of the file by name.
        name: name of the features.

    Raises:
        ValueError: for a missing array, and row starts that do not fit.
    """
    if name in arrays or f"{name}_indptr" not in arrays:
        return array(arrays, name, "features").astype(np.float32)
    starts = array(arrays, f"{name}_indptr", "features").astype(np.int64)
    column = array(arrays, f"{name}_indices", "features").astype(np.int64)
    counts = np.diff(starts)
    if (counts < 0).any() or starts[0] != 0 or starts[-1] != len(column):
        raise ValueError(
            f"features: {name}_indptr is not the start of each row in {name}_indices. Expected "
            f"numbers from 0 to {len(column)} in ascending order"
        )
    values = arrays.get(f"{name}_data", np.ones(len(column), np.float32))
    dense = np.zeros((len(counts), int(column.max(initial=-1)) + 1), np.float32)
    np.add.at(dense, (np.repeat(np.arange(len(counts)), counts), column), values)
    return dense
