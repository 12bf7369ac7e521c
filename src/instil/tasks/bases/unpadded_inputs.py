"""Inputs of a model that belong to rows, but are not divided by row."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from instil.core import Batch
from instil.roles import IMAGE_TOKENS, PADDED


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
            is_part = column < batch[f"{PADDED}{name}_length"][:, None]
            # Image towers do not accept zero images; without the input, a model reads text alone.
            if is_part.any():
                inputs[name] = padded[is_part]
    return inputs


def without_images(inputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the inputs of a model without its pixels, if no row of the batch has an image.

    Args:
        inputs: inputs of a model by name.
        batch: batch that may have ``IMAGE_TOKENS``.
    """
    if IMAGE_TOKENS not in batch or batch[IMAGE_TOKENS].any():
        return inputs
    return {name: value for name, value in inputs.items() if not name.startswith("pixel_")}
