"""Agreement, entropy and calibration of the outputs of a teacher."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED
from instil.tasks.bases.scores import calibration

UNSURE_BELOW = 0.8
"""Largest probability below which a teacher is unsure of an item."""


def class_probabilities(logits: Tensor, is_single: bool) -> Tensor:
    """Return probabilities whose last axis sums to 1.

    Args:
        logits: (..., C).
        is_single: whether an item has one class. Otherwise each class is a decision of its own:
            yes or no.

    Returns:
        Float32 tensor (..., C) for one class per item, (..., C, 2) for several.
    """
    if is_single:
        return F.softmax(logits.float(), -1)
    yes = torch.sigmoid(logits.float())
    return torch.stack([1 - yes, yes], -1)


def label_agreement(probabilities: Tensor, target: Tensor) -> float | None:
    """Share of labelled items whose most likely class is the label; None without labels.

    Args:
        probabilities: (..., C).
        target: class indices (...); -100 marks an unlabelled item.
    """
    is_labelled = target != UNLABELLED
    if not is_labelled.any():
        return None
    is_correct = probabilities.argmax(-1) == target
    return float(is_correct[is_labelled].double().mean())


def normalized_entropy(probabilities: Tensor) -> float:
    """Mean entropy as a share of its maximum: 0 for one certain class, 1 for equal classes.

    Args:
        probabilities: (..., C) with at least two classes.

    Example:
        >>> import torch
        >>> round(normalized_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])), 4)
        0.5
    """
    entropy = torch.special.entr(probabilities.double()).sum(-1)
    return float(entropy.mean() / math.log(probabilities.shape[-1]))


def unsure_share(probabilities: Tensor) -> float:
    """Share of items whose largest probability is below 0.8.

    Args:
        probabilities: (..., C).
    """
    return float((probabilities.amax(-1) < UNSURE_BELOW).double().mean())


def expected_calibration_error(probabilities: Tensor, target: Tensor) -> float | None:
    """Mean difference of confidence and accuracy over 15 bins (Guo et al. 2017, Eq. 3).

    Args:
        probabilities: (..., C).
        target: class indices (...); -100 marks an unlabelled item.

    Returns:
        Number in [0, 1]; None without labels.

    Example:
        >>> import torch
        >>> probabilities = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
        >>> expected_calibration_error(probabilities, torch.tensor([0, 1]))
        0.25
    """
    is_labelled = target != UNLABELLED
    if not is_labelled.any():
        return None
    confidence, decision = probabilities[is_labelled].double().max(-1)
    bins = calibration(confidence, decision == target[is_labelled])
    total = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins)
    return total / len(confidence)
