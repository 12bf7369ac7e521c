"""Which samples come together in a batch: a sampler is a function of a file of its own name, ``sampler(data, batch_size, generator)``.

It gives two tensors (batches, samples a batch): the rows of one epoch, and which version of its sample each is (0, 1 ...), so that two versions
in one epoch are augmented differently. It draws from ``generator`` alone, and gives as many batches in every epoch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import closest
from instil.data.samples import Samples

Sampler = Callable[[Samples, int, torch.Generator], tuple[Tensor, Tensor]]


def find(name: str) -> Sampler:
    """The sampler of this name; ValueError with the closest names where there is none."""
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise ValueError(f"there is no sampler '{name}'; {closest(name, known)}")
    found: Sampler = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return found


def half(batch_size: int, name: str) -> int:
    """Half of a batch; ValueError for a batch of one."""
    if batch_size < 2:
        raise ValueError(
            f"sampler {name} makes batches of two halves; batch_size must be 2 or more, not {batch_size}"
        )
    return batch_size // 2
