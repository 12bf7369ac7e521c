"""Networks without values, which have shapes and types and take no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

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
