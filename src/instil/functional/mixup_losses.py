"""Losses of mixtures of two samples and of the features of both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from instil.core import UNLABELLED, to_float32


def mixed_label_loss(
    logits: Tensor, target: Tensor, partner_target: Tensor, share: float, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of a mixture of two samples with both of their labels.

    Args:
        logits: logits (N, C) of the mixtures.
        target: class indices (N,) of the first samples; ``-100`` marks an unlabelled one.
        partner_target: class indices (N,) of the second samples; ``-100`` marks an unlabelled one.
        share: share of the first sample in the mixture, in [0, 1].
        reduction: ``"mean"`` over all items or ``"none"`` (one value per item).

    Returns:
        Scalar, or (N,) for ``reduction="none"``. The loss of items without one of the labels is 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 0.0, 0.0]])
        >>> mixed_label_loss(logits, torch.tensor([0]), torch.tensor([2]), 0.75)
        tensor(0.8014)
    """
    log_probs = to_float32(logits).log_softmax(-1)
    has_labels = (target != UNLABELLED) & (partner_target != UNLABELLED)
    own = F.nll_loss(log_probs, target.where(has_labels, 0), reduction="none")
    partner = F.nll_loss(log_probs, partner_target.where(has_labels, 0), reduction="none")
    values = torch.where(has_labels, share * own + (1 - share) * partner, 0.0)
    return values if reduction == "none" else values.mean()


def discriminator_loss(
    mixed_scores: Tensor, mixture_scores: Tensor, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of a discriminator with two outputs.

    Args:
        mixed_scores: scores (N, 2) of mixed features; their target is (1, 0).
        mixture_scores: scores (N, 2) of features of mixtures; their target is (0, 1).
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> discriminator_loss(torch.tensor([[2.0, -2.0]]), torch.zeros(1, 2))
        tensor(0.4100)
    """
    # softplus(-z) is the loss of target 1, softplus(z) of target 0.
    signs = mixed_scores.new_tensor([-1.0, 1.0])
    terms = F.softplus(to_float32(mixed_scores) * signs) + F.softplus(
        -to_float32(mixture_scores) * signs
    )
    values = terms.mean(-1) / 2
    return values if reduction == "none" else values.mean()
