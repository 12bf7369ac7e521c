"""Distances of binary masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32

SMOOTHING = 1.0
"""Number of pixels that is added to both sides of the Dice ratio."""


def mask_cross_entropy(mask_logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of masks, averaged over their valid pixels.

    Args:
        mask_logits: (..., H, W).
        target: probability of the object in each pixel, of a shape that broadcasts.
        valid: 1 for a pixel that counts and 0 for others, of a shape that broadcasts.

    Returns:
        (...), 0 for a mask without valid pixels.

    Example:
        >>> mask_cross_entropy(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2))
        tensor(0.6931)
    """
    logits = to_float32(mask_logits)
    values = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return _mean_of_valid(values, valid)


def mask_focal(
    mask_logits: Tensor, target: Tensor, valid: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss of masks, averaged over their valid pixels (Lin et al. 2017).

    Args:
        mask_logits: (..., H, W).
        target: 1 for a pixel of the object and 0 for others, of a shape that broadcasts.
        valid: 1 for a pixel that counts and 0 for others, of a shape that broadcasts.
        alpha: weight of the pixels of the object; the others have the weight 1 - alpha.
        gamma: exponent of the probability of the wrong class.

    Returns:
        (...), 0 for a mask without valid pixels.

    Example:
        >>> mask_focal(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2))
        tensor(0.0433)
    """
    logits = to_float32(mask_logits)
    target = target.expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    wrong = probability * (1 - target) + (1 - probability) * target
    weight = alpha * target + (1 - alpha) * (1 - target)
    return _mean_of_valid(weight * wrong**gamma * cross_entropy, valid)


def mask_dice(mask_logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Dice distance of masks over their valid pixels (Milletari et al. 2016).

    Args:
        mask_logits: (..., H, W).
        target: probability of the object in each pixel, of a shape that broadcasts.
        valid: 1 for a pixel that counts and 0 for others, of a shape that broadcasts.

    Returns:
        (...), between 0 and 1.

    Example:
        >>> mask_dice(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2))
        tensor(0.2500)
    """
    probability = to_float32(mask_logits).sigmoid() * valid
    target = target * valid
    shared = (probability * target).sum((-2, -1))
    total = probability.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * shared + SMOOTHING) / (total + SMOOTHING)


def mask_iou(mask: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Intersection over union of boolean masks over their valid pixels.

    Args:
        mask: (..., H, W), boolean.
        target: boolean, of a shape that broadcasts.
        valid: boolean, of a shape that broadcasts.

    Returns:
        (...), 1 if both masks are empty.

    Example:
        >>> every = torch.tensor([[True, True]])
        >>> mask_iou(every, torch.tensor([[True, False]]), every)
        tensor(0.5000)
    """
    shared = (mask & target & valid).sum((-2, -1))
    union = ((mask | target) & valid).sum((-2, -1))
    return torch.where(union > 0, shared / union.clamp_min(1), 1.0)


def resize_masks(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize mask logits (N, P, M, h, w) to another height and width (bilinear)."""
    if tuple(mask_logits.shape[-2:]) == tuple(size):
        return mask_logits
    resized = F.interpolate(mask_logits.flatten(1, 2), size, mode="bilinear", align_corners=False)
    return resized.view(*mask_logits.shape[:3], *size)


def best_masks(mask_logits: Tensor, iou_scores: Tensor) -> Tensor:
    """Mask of each prompt with the largest predicted intersection over union.

    Args:
        mask_logits: M candidates of each prompt (N, P, M, h, w).
        iou_scores: predicted intersection over union (N, P, M).

    Returns:
        (N, P, h, w).

    Example:
        >>> candidates = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1)
        >>> best_masks(candidates, torch.tensor([[[0.1, 0.9]]]))
        tensor([[[[2.]]]])
    """
    index = iou_scores.argmax(-1)[..., None, None, None]
    return mask_logits.take_along_dim(index, 2).squeeze(2)


def _mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    weight = valid.to(values.dtype).expand_as(values)
    return (values * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1)
