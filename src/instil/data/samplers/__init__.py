"""Composition of batches: one sampler per file, a function named like its file.

A sampler ``sampler(data, batch_size, generator)`` returns two tensors (batches, samples per batch)
for one epoch: the rows, and the version of each sample (0, 1, ...). Two versions of a sample in one
epoch are augmented differently. A sampler draws from ``generator`` only and returns the same number
of batches in every epoch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import torch
from torch import Tensor

from instil.cards import suggestion
from instil.data.samples import Samples

Sampler = Callable[[Samples, int, torch.Generator], tuple[Tensor, Tensor]]


def find(name: str) -> Sampler:
    """Return the sampler of this name.

    Raises:
        ValueError: for an unknown name, with the closest names.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise ValueError(f"unknown sampler '{name}'.{suggestion(name, names)}")
    sampler: Sampler = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return sampler


def half(batch_size: int, name: str) -> int:
    """Return half of a batch size, rounded down, for the sampler ``name``.

    Raises:
        ValueError: for a batch of one sample.
    """
    if batch_size < 2:
        raise ValueError(
            f"sampler {name} makes batches of two halves. Expected batch_size at least 2, got "
            f"{batch_size}"
        )
    return batch_size // 2
