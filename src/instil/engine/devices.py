"""Device of this process, and type of its computations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F

_DEFAULT_DEVICE: ContextVar[str] = ContextVar("default_device", default="auto")


def _cache_loses_gradients() -> bool:
    """Whether weights that autocast converted without gradients have none in a later pass."""
    weight = torch.zeros(1, 1, device="cpu", requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            F.linear(weight.detach(), weight)
        return not F.linear(weight.detach(), weight).requires_grad


CACHE_LOSES_GRADIENTS = _cache_loses_gradients()
"""True in torch 2.9 (pytorch/pytorch#158232): a network that runs without gradients first, such as
to sample its own inputs, would not be trained."""


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    """Set the device that ``auto`` stands for, for the duration of a ``with`` block.

    Args:
        name: name of the device; ``auto`` changes nothing.
    """
    token = _DEFAULT_DEVICE.set(name)
    try:
        yield
    finally:
        _DEFAULT_DEVICE.reset(token)


def check_device(name: str) -> None:
    """Check that a device exists.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        ValueError: with the devices that exist.
    """
    present = ["auto", "cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name not in present:
        raise ValueError(
            f"device: this machine has no such device. Expected {', '.join(present)}, got {name}"
        )
    if ":" in name and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            f"device: several processes cannot share one device. Expected auto or "
            f"{name.partition(':')[0]}, got {name}. Each process then takes its own"
        )


def local_device(name: str) -> torch.device:
    """Return the device of this process.

    Args:
        name: name of a torch device; ``auto`` stands for the default device of the recipe, or CUDA
            or MPS if available.
    """
    name = _DEFAULT_DEVICE.get() if name == "auto" else name
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        # torchrun starts one process for each device of a machine.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if name != "auto":
        return torch.device(name)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(precision: str) -> torch.dtype:
    """Return the type of computations.

    Args:
        precision: ``float32`` or ``bfloat16``.

    Raises:
        ValueError: for another precision.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in dtypes:
        raise ValueError(f"precision: Expected float32 or bfloat16, got '{precision}'")
    return dtypes[precision]


def autocast_to(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context of forward passes in a type.

    Args:
        device: device of the passes.
        dtype: type of the computations; ``float32``: the context changes nothing.
    """
    return torch.autocast(
        device.type,
        dtype,
        enabled=dtype != torch.float32,
        cache_enabled=not CACHE_LOSES_GRADIENTS,
    )
