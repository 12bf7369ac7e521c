"""Two kinds of knowledge are enough: each prediction, and the directions of the predictions of a batch to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def streamlined_kd_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    tikhonov: float = 0.1,
    direction: float = 1.0,
) -> Tensor:
    """KL(teacher || student) at a temperature, without T², plus ``direction`` times ``direction_loss``.

    Logits (..., C) of all items together give a scalar. Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    student, teacher = full(student).flatten(0, -2), full(teacher).flatten(0, -2)
    return softened_kl(student, teacher, temperature).mean() + direction * direction_loss(
        student, teacher, tikhonov
    )


def direction_loss(student: Tensor, teacher: Tensor, tikhonov: float = 0.1) -> Tensor:
    """Mean Mahalanobis length of the rows of D, the difference of the cosines of all pairs of items; logits (N, C) give a scalar.

    The covariance is that of D's columns over its rows, plus ``tikhonov`` on the diagonal.
    """
    mine, theirs = F.normalize(full(student), dim=-1), F.normalize(full(teacher), dim=-1)
    difference = mine @ mine.mT - theirs @ theirs.mT
    centred = difference - difference.mean(0, keepdim=True)
    count = len(difference)
    covariance = centred.mT @ centred / max(1, count - 1) + tikhonov * torch.eye(
        count, dtype=mine.dtype, device=mine.device
    )
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), difference.mT, upper=False
    )
    squared = whitened.square().sum(0)
    return torch.where(
        squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0
    ).mean()  # a length of 0 has no gradient


class StreamlinedKD(LogitObjective):
    """Instances by their divergence, directions by cosines in a whitened space; logits (..., C).

    ``temperature``: divides the logits of the divergence.
    ``tikhonov``: what is added to the diagonal of the covariance.
    ``direction``: weight of the directions relative to the instances; their memory grows with the square of the items.
    """

    card = Card(
        "Streamlined Knowledge Distillation",
        "https://cvpr.thecvf.com/virtual/2026/poster/39253",
        "CVPR",
        2026,
        source="logits",
        finite_logits=True,
        labels=("single",),
        couples=True,
        deviations="No factor T², and the gradient passes through the covariance, as in torchdistill's form. SKD is also the name of a structured "
        "distillation for segmentation (CVPR 2019), hence the long name.",
        equation=r"\frac{1}{N} \sum_{n=1}^{N} \mathrm{KL}(p^t_{T,n} \Vert p^s_{T,n}) + \frac{\lambda}{N} \sum_{n=1}^{N} \sqrt{d_n^\top (\Sigma + "
        r"\epsilon I)^{-1} d_n}, \quad d_n = \big( \cos(z^s_n, z^s_m) - \cos(z^t_n, z^t_m) \big)_{m=1}^{N}, \quad \Sigma = \mathrm{cov}(d)",
        use="kd with the relations of a batch's predictions added, in two terms and without adapters. No labels, no parameters; an N x N table "
        "and its Cholesky factor, of order N^3.",
        pitfalls="The covariance is of N numbers from N rows: it has no full rank without tikhonov, which therefore sets the scale of the second "
        "term, and the value depends on the batch size. Lengths are not squared, so the pull does not fade near a match. There is no factor T²: "
        "the first term pulls T² times less than kd.",
    )

    def __init__(
        self, temperature: Positive = 4.0, tikhonov: Positive = 0.1, direction: NonNegative = 1.0
    ):
        super().__init__()
        self.temperature, self.tikhonov, self.direction = temperature, tikhonov, direction

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return streamlined_kd_loss(
            student, teacher, self.temperature, self.tikhonov, self.direction
        )
