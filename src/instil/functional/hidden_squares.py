"""Hidden squares of images and videos, and their share of the positions of features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def tube_mask(uniform: Tensor, ratio: float, patch: int) -> Tensor:
    """Mask of hidden pixels; a tube is a square of pixels in all frames.

    Args:
        uniform: random numbers (N, h, w), one for each tube.
        ratio: share of hidden tubes; at least one is hidden and one is visible.
        patch: height and width of a tube.

    Returns:
        (N, h * patch, w * patch), 1 for a hidden pixel and 0 for others.

    Example:
        >>> import torch
        >>> tube_mask(torch.tensor([[[0.1, 0.9]]]), 0.5, 2)
        tensor([[[0., 0., 1., 1.],
                 [0., 0., 1., 1.]]])
    """
    flat = uniform.flatten(1)
    num_tubes = flat.shape[1]
    num_hidden = min(max(1, round(ratio * num_tubes)), num_tubes - 1)
    # Ranks, not a threshold, so that every sample has the same number of hidden tubes.
    rank = flat.argsort(1).argsort(1)
    hidden = (rank >= num_tubes - num_hidden).to(uniform.dtype).view_as(uniform)
    return F.interpolate(hidden[:, None], scale_factor=patch, mode="nearest")[:, 0]


def hidden_share(mask: Tensor, features: Tensor) -> Tensor:
    """Share of each position of a map that is hidden.

    Args:
        mask: (N, H, W), 1 for a hidden pixel and 0 for others.
        features: (N, C, h, w) or (N, C, T, h, w).

    Returns:
        (N, h, w) or (N, T, h, w); the same for all frames.
    """
    height, width = features.shape[-2:]
    share = F.adaptive_avg_pool2d(to_float32(mask), (height, width)).clamp(0, 1)
    if features.ndim == 4:
        return share
    return share[:, None].expand(-1, features.shape[2], -1, -1)
