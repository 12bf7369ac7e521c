"""Replacement of the values of items that do not count, before any arithmetic reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from instil.items.batch import UNLABELLED, Batch, Outputs, item_weights
from instil.items.tensor_values import has_host_values, inside_transform
from instil.roles.signals import SHARED_ROLES

LABEL_KEYS = ("label", "box")
"""Batch entries in which -100 stands for an unknown value."""

VALUE_KEYS = ("boxes",)
"""Other batch entries that hold one floating-point row per sample and that objectives read."""


def replace_uncounted(value: Tensor, counted: Tensor) -> Tensor:
    """Replace the rows of items that do not count by a copy of the first row that counts.

    A value that is not finite makes every gradient NaN that passes through arithmetic on it, also
    where the result is discarded afterwards (0 * inf). Therefore the value is replaced first. The
    copy is in the range that the arithmetic expects, for example a probability. If no item counts,
    the rows become a fixed pattern of different numbers between 0.25 and 0.75.

    Nothing is copied if the mask is on the CPU and every item counts. A mask on another device is
    not read by the host, so no step waits for the device.

    Args:
        value: (\\*items, ...), or (N, ...) where items are positions of N samples.
        counted: (\\*items), True for the items that count.

    Returns:
        ``value`` itself, or a tensor of the same shape. Replaced rows have no gradient.

    Example:
        >>> import torch
        >>> value = torch.tensor([[torch.nan, 1.0], [2.0, 3.0]])
        >>> replace_uncounted(value, torch.tensor([False, True]))
        tensor([[2., 3.],
                [2., 3.]])
    """
    if not value.is_floating_point() or value.ndim == 0 or every_item_counts(counted):
        return value
    if value.shape[: counted.ndim] != counted.shape:
        counted = counted.flatten(1).any(1) if counted.ndim > 1 else counted
    if value.shape[: counted.ndim] != counted.shape or value.numel() == 0:
        return value
    first = counted.flatten().int().argmax().view(1)
    row = value.detach()[torch.unravel_index(first, counted.shape)]
    row = torch.where(counted.any(), row, _pattern(row))
    columns = value.ndim - counted.ndim
    mask = counted.view(*counted.shape, *[1] * columns)
    return torch.where(mask, value, row.view(*[1] * counted.ndim, *row.shape[1:]))


def replace_invalid(value: Tensor, batch: Batch) -> Tensor:
    r"""Replace the items that ``valid`` excludes (``replace_uncounted``).

    For the losses that a scheme computes itself, without an objective.

    Args:
        value: (N, ...), or (\*items, ...) where ``valid`` has one entry per position.
        batch: the batch of the step.
    """
    return replace_uncounted(value, item_weights(batch) > 0) if "valid" in batch else value


def replace_invalid_outputs(outputs: Outputs, batch: Batch, roles: Iterable[str]) -> Outputs:
    """Outputs in which ``roles`` hold no value of an item that ``valid`` excludes.

    For schemes that pass the outputs of one network on to another module, whose parameters would
    get a NaN gradient (0 * NaN) from such an item.

    Args:
        outputs: outputs of one network.
        batch: the batch of the step.
        roles: roles that the scheme reads itself. Roles that are not there are ignored.
    """
    return (
        replace_in_outputs(outputs, roles, item_weights(batch) > 0) if "valid" in batch else outputs
    )


def every_item_counts(counted: Tensor) -> bool:
    """Whether a mask on the CPU is True everywhere; False for a mask whose values are elsewhere."""
    return has_host_values(counted) and bool(counted.all())


def replace_in_outputs(outputs: Outputs, roles: Iterable[str], counted: Tensor) -> Outputs:
    """Outputs in which the uncounted items of ``roles`` are replaced; all other roles are the same.

    Args:
        outputs: outputs of one side.
        roles: roles that are read. Roles that all samples share are left as they are.
        counted: mask of the items that count.
    """

    def replaced(value: Any, role: str = "") -> Any:
        if role in SHARED_ROLES:
            return value
        if isinstance(value, Tensor):
            return replace_uncounted(value, counted)
        if isinstance(value, tuple):
            return tuple(replaced(part) for part in value)
        if isinstance(value, dict):  # the outputs of one of several teachers
            return {name: replaced(part, name) for name, part in value.items()}
        return value

    return outputs | {role: replaced(outputs[role], role) for role in roles if role in outputs}


def replace_in_batch(batch: Batch, counted: Tensor) -> Batch:
    """A batch whose floating-point labels and boxes are replaced where an item does not count."""
    changed = dict(batch)
    for key in (*LABEL_KEYS, *VALUE_KEYS):
        value = batch.get(key)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if every_item_counts(counted):
            continue
        if key in LABEL_KEYS and value.shape[: counted.ndim] == counted.shape:
            mask = counted.view(*counted.shape, *[1] * (value.ndim - counted.ndim))
            changed[key] = torch.where(mask, value, UNLABELLED)
        else:
            changed[key] = replace_uncounted(value, counted)
    return changed


def drop_unlabelled_gradient(target: Tensor, *values: Tensor) -> list[Tensor]:
    """Return ``values`` with a gradient that is 0 at items whose target is -100.

    The mean discards the loss of such an item, but a NaN or inf in its logits would still make
    the gradient NaN (0 * inf). The forward pass costs nothing; the backward pass costs one
    ``masked_fill``, and nothing if the target is on the CPU and has no -100.

    Use it where items do not depend on each other and no parameter reads them; elsewhere replace
    the values (``replace_uncounted``).

    Args:
        target: class indices (...).
        values: logits (..., C) or other tensors that begin with the dimensions of ``target``.
    """
    counted = target != UNLABELLED
    if every_item_counts(counted):
        return list(values)
    return [drop_gradient(value, ~counted) if value.requires_grad else value for value in values]


def drop_gradient(values: Tensor, dropped: Tensor) -> Tensor:
    """Return ``values`` (..., *) with a gradient of 0 where ``dropped`` (...) is True."""
    mask = dropped.view(*dropped.shape, *[1] * (values.ndim - dropped.ndim))
    if inside_transform():
        return torch.where(mask, values.detach(), values)
    masked: Tensor = _DroppedGradient.apply(values, mask)
    return masked


class _DroppedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient.masked_fill(mask, 0.0), None


def _pattern(row: Tensor) -> Tensor:
    """Fixed numbers between 0.25 and 0.75 in the shape of ``row``."""
    # A constant row would have no direction after centring and equal singular values.
    index = torch.arange(row.numel(), device=row.device)
    mixed = (index * index % 65_521 * 40_503 + index * 30_011) % 65_521
    return (0.25 + mixed / (2 * 65_521)).to(row.dtype).view(row.shape)
