"""Runs of a module without side effects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def side_effect_free(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and a forked random state; modes are restored afterwards."""
    modes = {part: part.training for part in module.modules()}
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
