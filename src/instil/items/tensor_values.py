"""Tensors with and without values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor has values, so that it can be compared with another one.

    Fake tensors have shapes and types only; a forecast of memory computes with them. Inside a
    transform a tensor may stand for those of a whole batch.

    Args:
        tensor: any tensor.

    Example:
        >>> import torch
        >>> has_values(torch.zeros(2))
        True
    """
    return not (isinstance(tensor, FakeTensor) or inside_transform())


def has_host_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read without waiting for a device.

    Args:
        tensor: any tensor.
    """
    on_host = tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_host and has_values(tensor)


def inside_transform() -> bool:
    """Whether a transform of ``torch.func`` is active, such as ``grad`` or ``vmap``.

    It cannot differentiate autograd functions with a context; losses then use plain operations.
    """
    return torch._C._are_functorch_transforms_active()
