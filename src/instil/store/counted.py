"""Outputs of tokens, stored without the tokens that no loss reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from instil.store.outputs import Tensors, tensor_names

COUNTED = "counted"
"""Name of the mask (N, T) of a shard."""
ROLES = ("logits", "projection", "top", "sampled")
"""Roles that losses read at counted tokens only. Features are also read at other tokens."""


def counted_names(rows: Tensors, outputs: Mapping[str, Any], mask: Tensor) -> list[str]:
    """Return the names of the tensors that losses read at counted tokens only.

    Args:
        rows: tensors (N, ...) by name.
        outputs: role -> description of ``flatten_outputs``.
        mask: tokens (N, T) that losses read.
    """
    packed = tensor_names({role: outputs[role] for role in outputs if role in ROLES}, "rows")
    # One tensor may have two roles, such as the last hidden states.
    whole = tensor_names({role: outputs[role] for role in outputs if role not in ROLES}, "rows")
    return [name for name in sorted(packed - whole) if rows[name].shape[:2] == mask.shape]


def pack(rows: Tensors, names: Iterable[str], mask: Tensor) -> Tensors:
    """Keep the counted tokens.

    Args:
        rows: tensors by name.
        names: names of the tensors (N, T, ...) to pack.
        mask: counted tokens (N, T).

    Returns:
        All tensors, those of ``names`` as (M, ...) for M counted tokens, and the mask.
    """
    return rows | {name: rows[name][mask] for name in names} | {COUNTED: mask}


def unpack(tensor: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """Restore some rows of a packed tensor.

    Args:
        tensor: values of the counted tokens (M, ...).
        mask: counted tokens (N, T).
        rows: rows to restore (n,).

    Returns:
        Values (n, T, ...), zero at tokens that do not count.
    """
    position = mask.flatten().cumsum(0).view_as(mask) - 1
    is_counted = mask[rows]
    values = tensor.new_zeros(*is_counted.shape, *tensor.shape[1:])
    values[is_counted] = tensor[position[rows][is_counted]]
    return values


def num_counted(mask: Tensor) -> int:
    """Return the number of counted tokens of a mask."""
    return int(torch.count_nonzero(mask))
