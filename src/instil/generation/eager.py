"""Passes of compiled networks without compilation."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn


def eager_passes(forward: Any) -> AbstractContextManager[Any]:
    """Return a context in which a network that ``nn.Module.compile`` compiled runs eagerly.

    Decoding would compile a network again for each length of its cache, up to the limit of
    recompilations, after which the passes of the training are not compiled either.

    Args:
        forward: a network or another function.
    """
    modules = forward.modules() if isinstance(forward, nn.Module) else ()
    if any(module._compiled_call_impl is not None for module in modules):
        return cast("AbstractContextManager[Any]", torch.compiler.set_stance("force_eager"))
    # Without compiled networks, the import of the compiler is not worth its second.
    return contextlib.nullcontext()
