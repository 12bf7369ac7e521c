"""Real values of pixels, with masks of those that count."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.real_labels import unlabelled_mask

SMALLEST_DEPTH = 1e-3
"""Smallest depth whose logarithm is taken."""


def valid_pixels(batch: Batch, like: Tensor) -> Tensor:
    """Mask of the pixels of the images that count.

    Args:
        batch: ``valid`` (N, H, W), or (N,), or no such entry if all pixels count. An entry with
            more dimensions counts where all of its values do.
        like: tensor (N, H, W).

    Returns:
        Boolean mask (N, H, W).
    """
    valid = batch.get("valid")
    if valid is None:
        return torch.ones_like(like, dtype=torch.bool)
    if valid.ndim > like.ndim:
        valid = valid.bool().flatten(like.ndim).all(-1)
    mask: Tensor = valid.bool().view(*valid.shape, *[1] * (like.ndim - valid.ndim))
    return mask.expand_as(like)


def known_pixels(batch: Batch) -> Tensor:
    """Mask (N, H, W) of the pixels that count and have a depth above 0.

    Args:
        batch: ``label`` (N, H, W), -100 or NaN for an unknown depth, and ``valid``.
    """
    label: Tensor = batch["label"]
    return valid_pixels(batch, label) & ~unlabelled_mask(label) & (label > 0)


def known_depth(depth: Tensor, is_known: Tensor) -> Tensor:
    """Depths in float32, at least 1e-3; 1 at pixels that do not count.

    Args:
        depth: (N, H, W).
        is_known: mask (N, H, W).
    """
    return torch.where(is_known, to_float32(depth), 1.0).clamp_min(SMALLEST_DEPTH)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (N,) of the values of each image where the mask is True; 0 if it is nowhere.

    Args:
        values: (N, H, W).
        mask: boolean (N, H, W).

    Example:
        >>> masked_mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]]))
        tensor([1.])
    """
    require_dims(values, 2, "student and label")
    require_dims(mask, 2, "mask")
    total = torch.where(mask, values, 0.0).flatten(1).sum(1)
    return total / mask.flatten(1).sum(1).clamp_min(1)
