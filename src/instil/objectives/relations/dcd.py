"""Discriminative and consistent distillation: find the own teacher embedding, as surely as the teacher finds the student's."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, Positive
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.objectives.bases.relation_objective import HeadedObjective


def dcd_loss(
    student: Tensor,
    teacher: Tensor,
    scale: float | Tensor = 1.0,
    bias: float | Tensor = 0.0,
    consistency: float = 0.5,
) -> Tensor:
    """Cross-entropy of finding each sample's teacher embedding among all N, plus ``consistency`` times the KL divergence from the
    distributions of the student over teachers to those of the teacher over students (Giakoumoglou and Stathaki 2024); a scalar.

    Embeddings (N, D); scores are cosines times ``scale`` plus ``bias``.
    """
    scores = pairwise_dot(l2_normalize(student), l2_normalize(teacher)) * scale + bias
    finds, found = scores.log_softmax(1), scores.log_softmax(0).T
    own = torch.arange(len(scores), device=scores.device)
    total = F.nll_loss(finds, own, reduction="sum") + consistency * F.kl_div(
        finds, found, reduction="sum", log_target=True
    )
    return total / max(1, len(scores))


class DCD(HeadedObjective):
    """Samples find their teacher embedding among the batch's, both ways alike, after a linear head a side; scale and bias are learned.

    ``dim``: width of both heads' embeddings.
    ``consistency``: weight of the agreement of the two ways.
    ``max_scale``: bound of the learned scale, which begins at e.
    """

    card = Card(
        "Discriminative and consistent representation distillation",
        "https://arxiv.org/abs/2407.11802",
        "arXiv",
        2024,
        source="relations",
        algorithms=("contrastive",),
        couples=True,
        zero_at_match=False,
        deviations="at a match the loss is the cross-entropy among alike samples, not zero",
        equation=r"\frac{1}{N} \sum_{i=1}^{N} \left[ -\log p_{ii} + \alpha \mathrm{KL}\left(q_{i\cdot} \Vert p_{i\cdot}\right) \right], \quad "
        r"p_{ij} = \frac{e^{\ell_{ij}}}{\sum_k e^{\ell_{ik}}}, \quad q_{ij} = \frac{e^{\ell_{ji}}}{\sum_k e^{\ell_{ki}}}, \quad \ell_{ij} "
        r"= c z^{s\top}_i z^t_j + b",
        use="Contrastive distillation without a memory and without a temperature to tune, for classification with any two nets. Cost: a "
        "linear head a side, a scale and a bias; an N x N matrix.",
        pitfalls="Published with weight 1, alone or with kd of weight 1, at batches of 64: the negatives are the batch, and its size changes the "
        "loss. The bias leaves the softmaxes as they are and is never trained. Samples of the same class are pushed apart.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2)] = 128,
        consistency: NonNegative = 0.5,
        max_scale: Positive = 10.0,
    ):
        super().__init__(dim)
        self.consistency, self.max_scale = consistency, max_scale

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One linear head a side, the scale's logarithm and the bias."""
        super().build(student, teacher)
        mine = self.embed(student, teacher)[0]
        self.log_scale = nn.Parameter(mine.new_ones(1))
        self.bias = nn.Parameter(mine.new_zeros(1))

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return dcd_loss(
            student,
            teacher,
            self.log_scale.exp().clamp_max(self.max_scale),
            self.bias,
            self.consistency,
        )
