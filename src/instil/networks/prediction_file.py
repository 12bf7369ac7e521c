"""Predictions that another program wrote: logits or probabilities by the key of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.cards import suggestion
from instil.data.archive import read_arrays
from instil.functional.log_probabilities import log_of

VALUES = ("logits", "probabilities")
"""Names of the array, or column, with the predictions."""
KEYS = ("key", "keys")
"""Names of the array, or column, with the keys."""
MAX_SUM_ERROR = 1e-2
"""Largest difference of the sum of probabilities from 1; float16 rounds by less."""


@dataclass(frozen=True)
class PredictionFile:
    """Content of a file of predictions.

    Attributes:
        rows: key of a sample -> row of ``logits``.
        logits: (N, C), float32.
    """

    rows: Mapping[str, int]
    logits: Tensor


def read_predictions(file: Path) -> PredictionFile:
    """Read a ``.npz`` or ``.parquet`` file of predictions.

    It has ``logits`` or ``probabilities`` (N, C), or (N,) for one output; in parquet one list per
    row. ``key`` (N,) holds the keys of the samples, see ``instil.data.keys``; without it, the keys
    are the rows from 0.

    Args:
        file: the file.

    Raises:
        ValueError: for a missing or unreadable file, and for arrays that do not fit.
    """
    if not file.is_file():
        neighbours = [entry.name for entry in file.parent.glob("*")] if file.parent.is_dir() else []
        raise ValueError(f"no such file: {file}.{suggestion(file.name, neighbours)}")
    if file.suffix == ".npz":
        arrays: Mapping[str, NDArray[Any]] = read_arrays(file)
    elif file.suffix == ".parquet":
        arrays = _read_parquet(file)
    else:
        raise ValueError(f"{file.name}: expected a .npz or .parquet file, got {file.suffix}")
    try:
        return _parse(arrays)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _parse(arrays: Mapping[str, NDArray[Any]]) -> PredictionFile:
    names = [name for name in VALUES if name in arrays]
    if len(names) != 1:
        raise ValueError(
            f"expected one of the arrays {' and '.join(VALUES)}, got {', '.join(arrays) or 'none'}"
        )
    values = arrays[names[0]]
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        raise ValueError(
            f"{names[0]}: expected numbers (N, C), got {values.dtype} of shape {values.shape}"
        )
    logits = torch.from_numpy(values.astype(np.float32)).reshape(len(values), -1)
    if not logits.isfinite().all():
        raise ValueError(f"{names[0]}: expected finite numbers, got NaN or infinity")
    if names[0] == "probabilities":
        logits = _logits_of(logits)
    keys = _keys(arrays, len(logits))
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) < len(keys):
        repeated = next(key for row, key in enumerate(keys) if rows[key] != row)
        raise ValueError(f"key: '{repeated}' has several predictions. Expected one")
    return PredictionFile(rows, logits)


def _logits_of(probabilities: Tensor) -> Tensor:
    sums = probabilities.double().sum(1)
    is_wrong = (probabilities < 0).any(1) | ((sums - 1).abs() > MAX_SUM_ERROR)
    if is_wrong.any():
        row = int(is_wrong.nonzero()[0])
        raise ValueError(
            f"probabilities: row {row} has the sum {float(sums[row]):.4g}. Expected values of at "
            "least 0 with the sum 1; name the array logits if they are not probabilities"
        )
    return log_of(probabilities)


def _keys(arrays: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    names = [name for name in KEYS if name in arrays]
    if not names:
        return [str(row) for row in range(count)]
    keys = arrays[names[0]]
    if keys.shape != (count,):
        raise ValueError(f"key: expected one key per row ({count},), got the shape {keys.shape}")
    return [key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist()]


def _read_parquet(file: Path) -> dict[str, NDArray[Any]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            f'{file.name} needs the package pyarrow: pip install "instil[tables]"'
        ) from error
    try:
        table = parquet.read_table(file)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as parquet: {error}") from error
    arrays: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        if name not in (*VALUES, *KEYS):
            continue
        column = table.column(name).to_pylist()
        try:
            arrays[name] = np.array(column)
        except ValueError as error:
            raise ValueError(f"{file}: {name} has rows of different length") from error
    return arrays
