"""Inputs of a model that belong to rows, but are not divided by row."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from instil.core import Batch
from instil.roles import PADDED


def unpadded_inputs(batch: Batch, names: Collection[str]) -> dict[str, Tensor]:
    """Return the parts of all rows one after another, such as the patches of their images.

    Args:
        batch: batch with entries ``padded_NAME`` (N, L, ...) and ``padded_NAME_length`` (N,).
        names: names of the inputs of a model.

    Returns:
        ``NAME`` -> parts (sum of the lengths, ...), for the names that the batch has.
    """
    inputs = {}
    for name in names:
        padded = batch.get(f"{PADDED}{name}")
        if padded is not None:
            column = torch.arange(padded.shape[1], device=padded.device)
            inputs[name] = padded[column < batch[f"{PADDED}{name}_length"][:, None]]
    return inputs
