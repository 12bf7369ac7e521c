"""Hidden squares of images and videos, and their share of the positions of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, to_float32

LAYOUTS = {"image": "(N, C, H, W)", "clip": "(N, C, T, H, W)"}
"""Shape of each kind of input that squares of pixels are hidden in."""


def require_squares(batch: Batch, key: str, kind: str, patch: int) -> Tensor:
    """Return the input in which squares of pixels are hidden.

    Args:
        batch: the batch.
        key: batch key of the input.
        kind: ``image`` or ``clip``.
        patch: height and width of a square.

    Raises:
        ValueError: if the batch has no such input, or a square is larger than half of it.
    """
    layout = LAYOUTS[kind]
    value: Tensor | None = batch.get(key)
    if value is None or value.ndim != layout.count(",") + 1:
        shape = "none" if value is None else str(tuple(value.shape))
        raise ValueError(
            f"scheme: squares are hidden in {kind}s. Expected '{key}' {layout} in the batch, got "
            f"{shape}. Use scheme: offline for other data"
        )
    side = min(value.shape[-2:])
    if 2 * patch > side:
        raise ValueError(
            f"scheme.patch: a square is too large. Expected at most half of {side} pixels, got "
            f"{patch}"
        )
    return value


def hide_squares(value: Tensor, mask: Tensor) -> Tensor:
    """Replace hidden pixels by the mean of their channel.

    Args:
        value: images (N, C, H, W) or clips (N, C, T, H, W).
        mask: (N, H, W), 1 for a hidden pixel and 0 for others.

    Returns:
        Tensor with the shape of ``value``.

    Example:
        >>> import torch
        >>> hide_squares(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([[[[1., 2.]]]])
    """
    mean = value.mean(tuple(range(2, value.ndim)), keepdim=True)
    # One axis of the mask for each axis between the sample and the height.
    is_hidden = mask.view(len(mask), *[1] * (value.ndim - 3), *mask.shape[1:]) > 0
    return torch.where(is_hidden, mean, value)


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
