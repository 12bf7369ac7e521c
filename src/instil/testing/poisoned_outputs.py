"""Schemes whose networks have non-finite outputs for samples that do not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs, Scheme, item_weights
from instil.roles import SHARED_ROLES


def poisoned(make: Callable[[], Scheme], poison: float) -> Scheme:
    """Add a value to the outputs of every network at invalid samples, after the dry run.

    Args:
        make: returns a new scheme.
        poison: the value, such as NaN.
    """
    scheme = make()

    def hook(module: nn.Module, arguments: tuple[Any, ...], outputs: Outputs) -> Outputs:
        batch: Batch = arguments[0]
        if "valid" not in batch or not scheme.prepared:
            return outputs
        invalid = item_weights(batch) <= 0
        invalid = invalid.flatten(1).all(1) if invalid.ndim > 1 else invalid
        return {role: _add(value, invalid, poison, role) for role, value in outputs.items()}

    for part in scheme.modules():
        if isinstance(part, Net):
            part.register_forward_hook(hook)
    return scheme


def _add(value: Any, rows: Tensor, poison: float, role: str = "") -> Any:
    if isinstance(value, tuple):
        return tuple(_add(part, rows, poison) for part in value)
    if role in SHARED_ROLES or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.shape[:1] != rows.shape:
        return value
    # A sum passes gradients unchanged, so a gradient that is not 0 would reach the network.
    added = torch.zeros(len(value), dtype=value.dtype).masked_fill(rows, poison)
    return value + added.view(-1, *[1] * (value.ndim - 1))
