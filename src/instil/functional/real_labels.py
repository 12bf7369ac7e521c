"""Real-valued targets with unknown entries."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, to_float32


def unlabelled_mask(target: Tensor) -> Tensor:
    """Mask of the unknown entries of a target: those that are -100 or NaN."""
    return target.nan_to_num(UNLABELLED, torch.inf, -torch.inf) == UNLABELLED


def real_target(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Target of the shape of the outputs, and mask of its known entries.

    Args:
        outputs: (..., D).
        target: (..., D), or (...) where D is 1. Unknown entries are -100 or NaN.

    Returns:
        Target (..., D), in which unknown entries are the detached outputs, so that their error is
        0; mask (..., D), True for known entries.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if target.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
        target = target.unsqueeze(-1)
    if target.shape != outputs.shape:
        hint = " (the last may be left out)" if outputs.shape[-1] == 1 else ""
        raise ValueError(
            f"target has shape {tuple(target.shape)}; expected the outputs' shape "
            f"{tuple(outputs.shape)}{hint}"
        )
    is_labelled = ~unlabelled_mask(target)
    outputs = to_float32(outputs).detach()
    return torch.where(is_labelled, target.to(outputs.dtype), outputs), is_labelled


def mark_unlabelled(batch: Batch) -> Batch:
    """Return a batch with -100 in the place of every unknown entry of its label."""
    if "label" not in batch:
        return batch
    label = batch["label"]
    return batch | {"label": torch.where(unlabelled_mask(label), UNLABELLED, label)}
