"""Real-valued targets with unknown entries."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, to_float32


def unlabelled_mask(target: Tensor) -> Tensor:
    """True where a target says nothing: -100, or not a number."""
    return target.nan_to_num(UNLABELLED, torch.inf, -torch.inf) == UNLABELLED


def real_target(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A target of the shape of the outputs (..., D), or (...) for one output, and True (..., D) where it is known.

    What is unknown is the output itself, without its gradient, so that its error is nothing. Raises ValueError where the shapes do not fit.
    """
    if target.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
        target = target.unsqueeze(-1)
    if target.shape != outputs.shape:
        expected = f"the outputs' shape {tuple(outputs.shape)}" + (
            " (the last may be left out)" if outputs.shape[-1] == 1 else ""
        )
        raise ValueError(f"target has shape {tuple(target.shape)}; expected {expected}")
    known = ~unlabelled_mask(target)
    outputs = to_float32(outputs).detach()
    return torch.where(known, target.to(outputs.dtype), outputs), known
