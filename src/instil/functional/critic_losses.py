"""Losses of a critic and of the network that it judges."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CriticForm = Literal["non_saturating", "hinge"]
"""Form of both losses: logistic (Goodfellow et al. 2014) or hinge (Lim & Ye 2017)."""


def critic_loss(
    real_score: Tensor, fake_score: Tensor, form: CriticForm = "non_saturating"
) -> Tensor:
    """Loss of the critic; it is low for high scores of real items and low scores of fake ones.

    Args:
        real_score: scores of real items, in any shape.
        fake_score: scores of fake items, in the same shape.
        form: logistic or hinge.

    Returns:
        One value per item, in the shape of the scores.

    Example:
        >>> critic_loss(torch.tensor([0.0]), torch.tensor([0.0]))
        tensor([1.3863])
    """
    if form == "hinge":
        return F.relu(1 - real_score) + F.relu(1 + fake_score)
    return F.softplus(-real_score) + F.softplus(fake_score)


def generator_loss(fake_score: Tensor, form: CriticForm = "non_saturating") -> Tensor:
    """Loss of the network that makes the fake items.

    Args:
        fake_score: the critic's scores of fake items, in any shape.
        form: ``"hinge"`` is the negative score, ``"non_saturating"`` -log of its sigmoid.

    Returns:
        One value per item, in the shape of the scores.

    Example:
        >>> generator_loss(torch.tensor([0.0]))
        tensor([0.6931])
    """
    return -fake_score if form == "hinge" else F.softplus(-fake_score)


def gradient_penalty(score: Tensor, real: Tensor, item_dims: int) -> Tensor:
    """R1: half the squared norm of the score's gradient (Mescheder et al. 2018, Eq. 9).

    Args:
        score: the critic's scores of real items.
        real: input of the critic, which requires a gradient.
        item_dims: number of leading dimensions that index items.

    Returns:
        One value per item, differentiable by the critic's parameters.
    """
    (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    return gradient.square().flatten(item_dims).sum(-1) / 2
