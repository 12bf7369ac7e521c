"""Model that looks up predictions of another program instead of computing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import suggestion
from instil.core import Batch, Outputs
from instil.data.keys import sample_keys
from instil.data.splits import Splits
from instil.networks.prediction_file import read_predictions

SHOWN_KEYS = 3
"""Largest number of keys in a message."""


class PredictionsModel(nn.Module):
    """Predictions by the index of a sample. They do not depend on its augmentation.

    Args:
        file: file of predictions.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.file = file
        self.content = read_predictions(file)
        self.row_of_index = torch.zeros(0, dtype=torch.int64)

    def __deepcopy__(self, memo: Any) -> PredictionsModel:
        # The table may be large, and nothing changes it.
        return self

    def bind(self, splits: Splits) -> None:
        """Find the prediction of every sample.

        Args:
            splits: data whose samples have different indices in all splits.

        Raises:
            ValueError: if a training sample has no prediction, or only some of the samples for
                validation or test have one.
        """
        keys = sample_keys(splits)
        size = 1 + max(int(getattr(splits, part).index.max()) for part in keys)
        self.row_of_index = torch.full((size,), -1)
        for part, of_part in keys.items():
            missing = [key for key in of_part if key not in self.content.rows]
            if missing and (part == "train" or len(missing) < len(of_part)):
                raise ValueError(self._missing(part, missing, len(of_part)))
            if not missing:
                rows = torch.tensor([self.content.rows[key] for key in of_part])
                self.row_of_index[getattr(splits, part).index] = rows

    def covers(self, index: Tensor) -> bool:
        """Whether all samples have a prediction.

        Args:
            index: (N,).
        """
        return bool((self.row_of_index[index.cpu()] >= 0).all())

    def call_batch(self, batch: Batch) -> Outputs:
        """Return the ``logits`` (N, C) of the samples.

        Args:
            batch: batch with ``index`` (N,).
        """
        return {"logits": self(batch["index"])}

    def forward(self, index: Tensor) -> Tensor:
        """Return the logits (N, C) of samples.

        Args:
            index: (N,).

        Raises:
            ValueError: for a sample without a prediction.
        """
        rows = self.row_of_index[index.cpu()]
        if (rows < 0).any():
            raise ValueError(f"{self.file.name} has no predictions for these samples")
        return self.content.logits[rows].to(index.device)

    def _missing(self, part: str, missing: Sequence[str], count: int) -> str:
        names = list(self.content.rows)
        # A search for close names in a long list would take seconds.
        hint = suggestion(missing[0], names) if len(names) < 10_000 else ""
        return (
            f"{self.file.name} has no predictions for {len(missing)} of {count} {part} samples: "
            f"{_first(missing)}. Expected a prediction for each key; the file has {len(names)} "
            f"keys: {_first(names)}.{hint}"
        )


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
