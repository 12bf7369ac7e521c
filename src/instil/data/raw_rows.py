"""Encoder of raw table rows that is stored with a student."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.data.table_encoder import Feature, Table, TableEncoder

FACT = "raw_rows"
"""Key of the facts of the data that holds the stored encoder."""
KEY = "features"
"""Batch key of encoded rows."""


class RawRows:
    """Encoder of the columns of a table, and the scale of real labels.

    Args:
        encoder: encoder of the training rows.
        mean: (D,), mean of the labels, which training subtracts; 0 for classes.
        std: (D,), standard deviation of the labels, by which training divides; 1 for classes.
    """

    def __init__(self, encoder: TableEncoder, mean: Tensor, std: Tensor):
        self.encoder = encoder
        self.mean = mean
        self.std = std

    @classmethod
    def from_json(cls, text: str) -> RawRows:
        """Return the encoder that ``to_json`` wrote.

        Args:
            text: JSON.
        """
        stored = json.loads(text)
        features = []
        for entry in stored["features"]:
            names = entry["categories"]
            features.append(Feature(**entry | {"categories": names and tuple(names)}))
        encoder = TableEncoder.from_features(features)
        mean, std = (torch.tensor(stored[key], dtype=torch.float32) for key in ("mean", "std"))
        return cls(encoder, mean, std)

    def to_json(self) -> str:
        """Return the encoder as JSON, which ``from_json`` reads."""
        features = [dataclasses.asdict(feature) for feature in self.encoder.features]
        stored = {"features": features, "mean": self.mean.tolist(), "std": self.std.tolist()}
        return json.dumps(stored, ensure_ascii=False)

    def encode(self, inputs: Any) -> Tensor:
        """Encode raw rows as in training.

        Args:
            inputs: values by column, or a DataFrame of pandas.

        Returns:
            (N, F).

        Raises:
            ValueError: for a missing column, columns of different lengths, and wrong values.
        """
        table = _columns(inputs)
        names = [feature.name for feature in self.encoder.features if feature.name in table]
        lengths = {name: len(table[name]) for name in names}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"columns: different numbers of rows ({sizes}). Expected one number")
        return self.encoder.encode(table)

    def restore(self, values: Tensor) -> Tensor:
        """Return predicted numbers (N, D) in the unit of the labels."""
        return values * self.std + self.mean


def is_raw(inputs: Any) -> bool:
    """Whether inputs are columns of a table, not encoded rows."""
    if isinstance(inputs, Mapping):
        return KEY not in inputs
    return hasattr(inputs, "columns")


def _columns(inputs: Any) -> Table:
    if isinstance(inputs, Mapping):
        for name, values in inputs.items():
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(
                    f"column '{name}': {type(values).__name__} is not a list of values. Expected "
                    "one value per row"
                )
        return inputs
    # Missing values of pandas have several types; here None is the missing value.
    columns = inputs.astype(object).where(inputs.notna(), None)
    return {str(name): columns[name].tolist() for name in columns.columns}
