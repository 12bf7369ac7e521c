"""Relational KD: distances and angles between the samples of a batch agree."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, to_float32
from instil.functional.directions import angle_cosines
from instil.functional.feature_maps import require_same_items
from instil.functional.similarities import NEAREST, pairwise_distances
from instil.objectives.bases.relation_objective import RelationObjective


def rkd_distance_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Huber loss of the distances between samples (Park et al. 2019).

    Each side's distances are divided by their mean. Mean over all N * N pairs, with the diagonal.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> student_embedding = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_distance_loss(student_embedding, torch.eye(3))
        tensor(0.0556)
    """
    require_same_items(student_embedding, teacher_embedding, "rkd_distance_loss")
    total = F.smooth_l1_loss(
        _relative_distances(student_embedding),
        _relative_distances(teacher_embedding),
        reduction="sum",
    )
    return total / max(1, len(student_embedding) ** 2)


def rkd_angle_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles of three samples (Park et al. 2019).

    Mean over all N * N * N triplets, degenerate ones included. Memory grows with ``N ** 3``.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> student_embedding = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_angle_loss(student_embedding, torch.eye(3))
        tensor(0.0926)
    """
    require_same_items(student_embedding, teacher_embedding, "rkd_angle_loss")
    student_cosines, teacher_cosines = (
        angle_cosines(to_float32(embedding).flatten(1))
        for embedding in (student_embedding, teacher_embedding)
    )
    total = F.smooth_l1_loss(student_cosines, teacher_cosines, reduction="sum")
    return total / max(1, len(student_embedding) ** 3)


def _relative_distances(samples: Tensor) -> Tensor:
    """Pairwise distances (N, N) divided by their mean."""
    distances = pairwise_distances(samples)
    # The diagonal is 0, so the mean is taken over the N (N - 1) other entries.
    mean = distances.sum() / max(1, len(samples) * (len(samples) - 1))
    return distances / mean.clamp_min(NEAREST)


class RKD(RelationObjective):
    """Agreement of the distances of pairs and the angles of triplets of the batch's embeddings.

    Embeddings are (N, D) of any widths.
    """

    card = Card(
        "Relational knowledge distillation",
        "https://arxiv.org/abs/1904.05068",
        "CVPR",
        2019,
        source="relations",
        couples=True,
        published_weight=1.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64",
        deviations="Mean over all pairs and triplets, including the degenerate ones, as in the "
        "code; the paper sums over the distinct ones.",
        equation=r"\lambda_d \frac{1}{N^2} \sum_{i,j} h\left( \frac{d^s_{ij}}{\mu^s} - "
        r"\frac{d^t_{ij}}{\mu^t} \right) + \lambda_a \frac{1}{N^3} \sum_{i,j,k} h\left( "
        r"\cos\theta^s_{ijk} - \cos\theta^t_{ijk} \right), \quad h = \mathrm{Huber}_{\delta = 1}",
        use="For metric learning and retrieval, and for classification together with kd. "
        "Embeddings may have any widths, and nothing is learned. Cost: N x N x N values for the "
        "angles.",
        pitfalls="The memory of the angles limits the batch size; angle: 0 omits them. The mean "
        "distance is taken over the batch, so gradient accumulation changes the loss. In the "
        "authors' metric-learning runs the student's embeddings are not normalised.",
    )

    def __init__(
        self,
        distance: Annotated[
            NonNegative,
            Doc("weight of the distances; 25 for classification, 1 for metric learning"),
        ] = 25.0,
        angle: Annotated[
            NonNegative,
            Doc(
                "weight of the angles; 50 for classification, 2 for metric learning; "
                "they need memory for N x N x N values"
            ),
        ] = 50.0,
    ):
        super().__init__()
        self.distance = distance
        self.angle = angle

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        loss = self.distance * rkd_distance_loss(student_embedding, teacher_embedding)
        # The table of triplets has N ** 3 entries, so it is left out where its weight is 0.
        if not self.angle:
            return loss
        return loss + self.angle * rkd_angle_loss(student_embedding, teacher_embedding)
