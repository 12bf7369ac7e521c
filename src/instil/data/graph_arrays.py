"""Arrays of a graph in a NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from instil.cards import suggestion

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
            f"{suggestion(name, arrays)}"
        )
    return arrays[name]


def edge_array(arrays: Arrays, names: str | Sequence[str]) -> NDArray[np.int64]:
    """Return one array (2, E) of edges, or several of them, joined.

    Args:
        arrays: arrays of the file by name.
        names: name or names of the arrays.

    Raises:
        ValueError: for a missing array.
    """
    several = [names] if isinstance(names, str) else names
    joined = [array(arrays, name, "edges") for name in several]
    return np.concatenate(joined, axis=1).astype(np.int64)


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
