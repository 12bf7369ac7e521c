"""Pooling over positions."""

from __future__ import annotations

from torch import Tensor


def global_average_pool(stage: Tensor) -> Tensor:
    """The mean over positions, (N, C), of a map (N, C, H, W), tokens (N, L, C) or a vector (N, C)."""
    return stage.mean((2, 3)) if stage.ndim == 4 else stage.mean(1) if stage.ndim == 3 else stage
