"""Losses of a critic and of the network that it judges."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CriticForm = Literal["non_saturating", "hinge"]
"""Of both losses: logistic (Goodfellow et al. 2014) or hinge (Lim & Ye 2017)."""


def critic_loss(real: Tensor, fake: Tensor, form: CriticForm = "non_saturating") -> Tensor:
    """The critic's loss by its scores of both sides, each in the shape of the items: high for real ones, low for others."""
    return (
        F.relu(1 - real) + F.relu(1 + fake)
        if form == "hinge"
        else F.softplus(-real) + F.softplus(fake)
    )


def generator_loss(fake: Tensor, form: CriticForm = "non_saturating") -> Tensor:
    """The loss of who wants to be taken for real, by the critic's scores: in the hinge form simply the score, in the other -log of its sigmoid."""
    return -fake if form == "hinge" else F.softplus(-fake)


def gradient_penalty(score: Tensor, real: Tensor, items: int) -> Tensor:
    """Half the squared length of the score's gradient by what was scored, an item of the first ``items`` dimensions each (Mescheder et al. 2018,
    Eq. 9: R1). Differentiable by the critic."""
    (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    return gradient.square().flatten(items).sum(-1) / 2
