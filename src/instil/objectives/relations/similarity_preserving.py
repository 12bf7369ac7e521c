"""Samples that look alike to the teacher look alike to the student."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card
from instil.objectives.feature_objective import FeatureObjective
from instil.objectives.pairs import Pairs
from instil.objectives.similarities import inner_products


def similarity_preserving_loss(student: Tensor, teacher: Tensor, norm: float = 2.0) -> Tensor:
    """Squared difference of the two stages' (N, N) similarities, rows of unit length in ``norm``, over N squared; a scalar.

    Stages (N, ...) of any shapes (Tung and Mori 2019).
    """
    mine, theirs = (F.normalize(inner_products(side), p=norm, dim=1) for side in (student, teacher))
    return (mine - theirs).square().sum() / max(1, len(student) ** 2)


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
    )

    def __init__(self, norm: Annotated[float, Ge(1)] = 2.0, pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.norm = norm

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "similarities of the samples"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return similarity_preserving_loss(student, teacher, self.norm)
