"""Outputs for rows of tokens, in the width of another batch."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch


def row_width(batch: Batch) -> int:
    """Return the number of tokens of a row; 0 for batches of other samples.

    Args:
        batch: batch with ``label``.
    """
    mask = batch.get("attention_mask")
    label = batch.get("label")
    if mask is None or label is None or mask.ndim != 2 or mask.shape != label.shape:
        return 0
    return int(mask.shape[1])


def resized(tensor: Tensor, name: str, width: int, new_width: int) -> Tensor:
    """Cut padding off an output of rows of tokens, or add some.

    Args:
        tensor: output of a batch (N, T, ...); attention maps are (N, H, T, T).
        name: name of the output, such as ``projection.hidden`` or ``attentions.0``.
        width: number T of tokens of a row; 0 for other samples.
        new_width: number of tokens of a row of the result.

    Returns:
        The output, with zeros for new tokens.
    """
    if width == new_width:
        return tensor
    for dim in (2, 3) if name.startswith("attentions.") else (1,):
        if dim >= tensor.ndim or tensor.shape[dim] != width:
            continue
        if new_width < width:
            tensor = tensor.narrow(dim, 0, new_width)
        else:
            shape = list(tensor.shape)
            shape[dim] = new_width - width
            tensor = torch.cat([tensor, tensor.new_zeros(shape)], dim)
    return tensor
