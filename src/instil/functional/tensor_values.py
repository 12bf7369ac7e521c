"""Tensors with and without values."""

from __future__ import annotations

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor has values, so that it can be compared with another one.

    Fake tensors have shapes and types only. A forecast of memory computes with them.

    Args:
        tensor: any tensor.

    Example:
        >>> import torch
        >>> has_values(torch.zeros(2))
        True
    """
    return not isinstance(tensor, FakeTensor)
