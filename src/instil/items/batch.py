"""Batches and outputs, and functions of a batch: its size, item weights and means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
"""Values that a loader yields: ``image`` ..., ``label`` (-100: none), ``valid`` (False: the item
does not count), ``index``, ``view``. ``fit`` adds ``step``, ``progress``, ``seed`` and, if the
loader has a length, ``epoch_ends``."""

Outputs = dict[str, Any]
"""Role -> tensor or tuple of tensors: ``logits``, ``features``, ``embedding`` ...; empty without a
teacher."""

UNLABELLED = -100
"""Label of an item that has none."""


def first_tensor(batch: Batch) -> Tensor:
    """First tensor of the batch that has dimensions; its first dimension is the batch size.

    Raises:
        ValueError: if the batch has no such tensor.
    """
    first = _first_tensor(batch)
    if first is not None:
        return first
    raise ValueError(
        f"the batch has no tensor with dimensions; its keys are {', '.join(batch) or 'none'}"
    )


def _first_tensor(batch: Batch) -> Tensor | None:
    tensors = (value for value in batch.values() if isinstance(value, Tensor))
    return next((tensor for tensor in tensors if tensor.ndim), None)


def batch_size(batch: Batch) -> int:
    """Number of samples of a batch."""
    return len(first_tensor(batch))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on ``device``; other values are kept."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def in_dtype_of(model: nn.Module, batch: Batch) -> Batch:
    """Return a batch whose first tensor has the dtype of the model's weights.

    A tensor of integers is kept, and any tensor if the model has no floating-point weights.
    """
    dtypes = (parameter.dtype for parameter in model.parameters())
    dtype = next((dtype for dtype in dtypes if dtype.is_floating_point), None)
    first = _first_tensor(batch)
    if first is None or dtype in (None, first.dtype) or not first.is_floating_point():
        return batch
    return {key: value.to(dtype) if value is first else value for key, value in batch.items()}


def item_weights(batch: Batch) -> Tensor:
    """Weight of each item: ``valid`` as float, or ones (N,) for a batch without it."""
    valid: Tensor | None = batch.get("valid")
    if valid is None:
        return torch.ones(batch_size(batch), device=first_tensor(batch).device)
    return valid.float()


def mean(values: Tensor, weight: Tensor, num_items: Tensor | None = None) -> Tensor:
    """Weighted sum of the values divided by the number of items, in float32 or better.

    Args:
        values: one loss per item, or a scalar of a coupled loss, which is returned unchanged.
        weight: item weights of the same shape; items with weight 0 are left out.
        num_items: divisor (scalar). Defaults to the sum of the weights.

    Returns:
        Scalar; zero, with its graph, if no item counts.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(1.5000)
    """
    if values.ndim == 0:
        return values
    if values.shape != weight.shape:
        shapes = f"loss values {tuple(values.shape)} for items {tuple(weight.shape)}"
        raise ValueError(f"{shapes}; if a sample has several items, the batch needs 'valid'")
    values = to_float32(values)
    divisor = weight.sum() if num_items is None else num_items
    # torch.where, not a product: the loss of an item that does not count may be NaN.
    total = torch.where(weight > 0, values * weight, 0.0).sum()
    return total / divisor.clamp_min(torch.finfo(torch.float32).tiny)


def graph_preserving_zero(outputs: Outputs, roles: Iterable[str]) -> Tensor:
    """Zero that depends on the outputs of ``roles``: the loss of a batch without items."""
    parts: list[Tensor] = []
    for role in roles:
        value = outputs[role]
        parts += value if isinstance(value, tuple) else [value]
    return torch.stack([to_float32(part).nan_to_num(0, 0, 0).sum() * 0 for part in parts]).sum()


def to_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
