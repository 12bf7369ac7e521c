"""Pooling over positions."""

from __future__ import annotations

from torch import Tensor


def global_average_pool(stage: Tensor) -> Tensor:
    """Mean over positions.

    Args:
        stage: feature map (N, C, H, W), tokens (N, L, C) or vectors (N, C).

    Returns:
        (N, C).
    """
    if stage.ndim == 4:
        return stage.mean((2, 3))
    return stage.mean(1) if stage.ndim == 3 else stage
