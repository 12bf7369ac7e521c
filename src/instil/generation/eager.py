"""Passes of compiled networks without compilation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn


def eager_context(forward: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes a context in which a compiled network runs eagerly.

    A compiled network is one on which ``nn.Module.compile`` was called. All modules are searched
    for one, so that the function is for many passes.

    Decoding would compile a network again for each length of its cache, up to the limit of
    recompilations, after which the passes of the training are not compiled either.

    Args:
        forward: a network or another function.
    """
    modules = forward.modules() if isinstance(forward, nn.Module) else ()
    if any(module._compiled_call_impl is not None for module in modules):
        return functools.partial(torch.compiler.set_stance, "force_eager")
    # Without compiled networks, the import of the compiler is not worth its second.
    return contextlib.nullcontext
