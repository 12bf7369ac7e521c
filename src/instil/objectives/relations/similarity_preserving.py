"""Samples that look alike to the teacher look alike to the student."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card
from instil.functional.pairs import Pairs
from instil.functional.similarities import inner_products
from instil.objectives.bases.feature_objective import FeatureObjective


def similarity_preserving_loss(student: Tensor, teacher: Tensor, norm: float = 2.0) -> Tensor:
    """Squared difference of the two stages' (N, N) similarities, rows of unit length in ``norm``, over N squared; a scalar.

    Stages (N, ...) of any shapes (Tung and Mori 2019).
    """
    mine, theirs = (F.normalize(inner_products(side), p=norm, dim=1) for side in (student, teacher))
    return F.mse_loss(mine, theirs, reduction="sum") / max(1, len(student) ** 2)


class SimilarityPreserving(FeatureObjective):
    """The batch's similarity matrix agrees at every pair of stages, summed over the pairs.

    ``norm``: of the matrix's rows, which become unit length; 2 is the paper's, 1 torchdistill's.
    """

    card = Card(
        "Similarity-preserving knowledge distillation",
        "https://arxiv.org/abs/1907.09682",
        "ICCV",
        2019,
        source="relations",
        couples=True,
        equation=r"\sum_{(l, m)} \frac{1}{N^2} \left\Vert G^s_l - G^t_m \right\Vert_F^2, \quad G_{ij} = \frac{f_i^\top f_j}{\left\Vert "
        r"\left(f_i^\top f_1, \dots, f_i^\top f_N\right) \right\Vert_2}",
        use="For nets whose stages differ in channels, grid or kind: flattened activations are compared through the samples alone. No "
        "parameters; an N x N matrix a pair of stages. It combines with kd.",
        pitfalls="The published weight is 3000, for N x N means of unit rows, and belongs to the batch size and the number of pairs. Samples with "
        "large activations rule their rows. Batches without several samples of a class hold little that is alike.",
    )

    def __init__(self, norm: Annotated[float, Ge(1)] = 2.0, pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.norm = norm

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "similarities of the samples"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return similarity_preserving_loss(student, teacher, self.norm)
