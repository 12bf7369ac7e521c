"""Evaluation mode and constant BatchNorm statistics of a module for a limited time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; on exit every submodule gets its own mode back.

    Dropout and the statistics of BatchNorm do not change inside.

    Args:
        module: the module.

    Example:
        >>> layer = nn.Dropout()
        >>> with eval_mode(layer):
        ...     print(layer.training)
        False
        >>> layer.training
        True
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm constant in training mode.

    The layers still normalise by the statistics of the batch.

    Args:
        module: the module.

    Example:
        >>> import torch
        >>> layer = nn.BatchNorm1d(1)
        >>> with frozen_statistics(layer):
        ...     output = layer(torch.tensor([[1.0], [3.0]]))
        >>> output.mean().item(), layer.running_mean.item(), layer.num_batches_tracked.item()
        (0.0, 0.0, 0)
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    counts = [counter.clone() for counter in counters]
    # With momentum 0 a norm uses the statistics of the batch and adds nothing to the running ones.
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for counter, count in zip(counters, counts, strict=True):
            counter.copy_(count)
