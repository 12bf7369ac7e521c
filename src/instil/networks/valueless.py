"""Networks without values, which have shapes and types and take no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

_MODE: ContextVar[FakeTensorMode | None] = ContextVar("valueless", default=None)


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build the networks of a ``with`` block on the meta device, and let them compute there.

    Their tensors are fake: their device is the CPU, and operations compute shapes and types only.
    They work with real tensors, such as batches, also after the block.
    """
    token = _MODE.set(FakeTensorMode(allow_non_fake_inputs=True))
    try:
        yield
    finally:
        _MODE.reset(token)


@contextlib.contextmanager
def construction() -> Iterator[None]:
    """Context in which a network is built: without values inside of ``without_values``."""
    mode = _MODE.get()
    with contextlib.nullcontext() if mode is None else mode:
        yield


def to_float32(model: nn.Module) -> nn.Module:
    """Convert the weights and buffers of a network to float32, in place.

    ``nn.Module.float`` swaps fake tensors, which fails while their mode refers to them. Here the
    network gets new parameters. Shared parameters stay shared.

    Args:
        model: network, with or without values.
    """
    if _MODE.get() is None:
        return model.float()
    converted: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters("", False, False)):
            if parameter not in converted:
                weight = parameter.float() if parameter.is_floating_point() else parameter
                converted[parameter] = nn.Parameter(weight.detach(), parameter.requires_grad)
            setattr(module, name, converted[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(module, name, buffer.float())
    return model
