"""Relational KD: distances and angles between the samples of a batch agree."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, NonNegative, to_float32
from instil.functional.directions import angle_cosines
from instil.functional.similarities import NEAREST, pairwise_distances
from instil.objectives.bases.relation_objective import RelationObjective


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances between samples, each side in units of its mean distance (Park et al. 2019); a scalar.

    Embeddings (N, D) of any widths; mean over all N * N pairs, with the diagonal.
    """
    return F.smooth_l1_loss(_in_means(student), _in_means(teacher), reduction="sum") / max(
        1, len(student) ** 2
    )


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles that any three samples form (Park et al. 2019); a scalar.

    Embeddings (N, D) of any widths; mean over all N * N * N triplets, degenerate ones included. Memory grows with N ** 3.
    """
    mine, theirs = (angle_cosines(to_float32(side).flatten(1)) for side in (student, teacher))
    return F.smooth_l1_loss(mine, theirs, reduction="sum") / max(1, len(student) ** 3)


def _in_means(samples: Tensor) -> Tensor:
    """The distances in units of their mean."""
    apart = pairwise_distances(samples)
    return apart / (apart.sum() / max(1, len(samples) * (len(samples) - 1))).clamp_min(NEAREST)


class RKD(RelationObjective):
    """The batch of embeddings keeps its shape: distances of pairs and angles of triplets.

    ``distance``: weight of the distances (25 for classification, 1 for metric learning).
    ``angle``: weight of the angles (50 for classification, 2 for metric learning); needs memory for N x N x N numbers.
    """

    card = Card(
        "Relational knowledge distillation",
        "https://arxiv.org/abs/1904.05068",
        "CVPR",
        2019,
        source="relations",
        couples=True,
        deviations="mean over all pairs and triplets with the degenerate ones, as in the code; the paper sums over the distinct ones",
        equation=r"\lambda_d \frac{1}{N^2} \sum_{i,j} h\left( \frac{d^s_{ij}}{\mu^s} - \frac{d^t_{ij}}{\mu^t} \right) + \lambda_a \frac{1}{N^3} "
        r"\sum_{i,j,k} h\left( \cos\theta^s_{ijk} - \cos\theta^t_{ijk} \right), \quad h = \mathrm{Huber}_{\delta = 1}",
        use="For metric learning and retrieval, and for classification beside kd. Embeddings may have any widths and nothing is learned. "
        "Cost: N x N x N numbers for the angles.",
        pitfalls="Memory of the angles limits the batch; angle: 0 leaves them out. The mean distance is of the batch, so that gradient "
        "accumulation changes the loss. The authors' metric-learning runs leave the student's embeddings without unit length.",
    )

    def __init__(self, distance: NonNegative = 25.0, angle: NonNegative = 50.0):
        super().__init__()
        self.distance, self.angle = distance, angle

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        loss = self.distance * rkd_distance_loss(student, teacher)
        return loss + self.angle * rkd_angle_loss(student, teacher) if self.angle else loss
