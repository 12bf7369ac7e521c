"""Position of a training, which its batches carry."""

from __future__ import annotations

import torch

from instil.core import Batch


def clock(step: int, progress: float, seed: int, **further: bool) -> Batch:
    """Return the entries that a training adds to every batch of a step.

    Args:
        step: index of the optimizer step.
        progress: share of the training that is done, in [0, 1].
        seed: seed of keyed draws.
        further: further entries by name.
    """
    values = {"step": step, "progress": progress, "seed": seed, **further}
    return {name: torch.tensor(value) for name, value in values.items()}
