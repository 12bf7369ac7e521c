"""Self-supervised distillation: a sample is as near to remembered teacher embeddings, and to its own, as the teacher says."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import soft_cross_entropy
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.objectives.bases.anchor_objective import AnchorObjective
from instil.objectives.bases.relation_objective import ProjectedObjective


def seed_loss(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    temperature: float = 0.2,
    teacher_temperature: float = 0.01,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the likeness to the sample's own teacher embedding and to the ``queue`` (K, D) (Fang et al. 2021).

    Embeddings (N, D), to unit length; the softmax over K + 1 cosines has each side's own temperature. Raises ValueError where the shapes differ.
    """
    mine, theirs = (
        l2_normalize(side) for side in require_same_shape(student, teacher, "seed_loss")
    )
    anchors = queue.to(mine.dtype)
    scores = [
        torch.cat([(side * theirs).sum(1, keepdim=True), pairwise_dot(side, anchors)], 1)
        for side in (mine, theirs)
    ]
    return apply_reduction(
        soft_cross_entropy(scores[0] / temperature, scores[1] / teacher_temperature), reduction
    )


class SEED(AnchorObjective, ProjectedObjective):
    """The likeness to the last teacher embeddings agrees with the teacher's, after a learned linear map where the widths differ.

    ``temperature``: of the student.
    ``teacher_temperature``: of the teacher; the paper's 0.01, in the code's scripts down to 1e-4.
    ``size``: how many embeddings are remembered.
    """

    card = Card(
        "SEED: Self-supervised distillation for visual representation",
        "https://arxiv.org/abs/2101.04731",
        "ICLR",
        2021,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        deviations="at a match the loss is the cross-entropy of two temperatures, not zero",
        equation=r"-\sum_{k=0}^{K} p^t_k \log p^s_k, \quad p_k = \frac{e^{\cos(f, a_k) / \tau}}{\sum_{l=0}^{K} e^{\cos(f, a_l) / \tau}}, \quad a_0 "
        r"= f^t, \quad \tau \in \lbrace \tau^s, \tau^t \rbrace",
        use="To distil a self-supervised teacher into a small net without labels, as the only loss. Cost: size teacher vectors are "
        "remembered, and a product with all of them each step; a linear map where the widths differ.",
        pitfalls="The value at a match is not zero, so that the loss cannot tell how near the student is. At a low teacher temperature the target "
        "is the sample's own embedding alone, and the method becomes a contrastive one. The queue starts random and is full after size "
        "samples.",
    )

    def __init__(
        self,
        temperature: Positive = 0.2,
        teacher_temperature: Positive = 0.01,
        size: Annotated[int, Ge(1)] = 65536,
    ):
        super().__init__()
        self.temperature, self.teacher_temperature, self.size = (
            temperature,
            teacher_temperature,
            size,
        )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return seed_loss(
            student,
            teacher,
            self.queue["teacher"],
            self.temperature,
            self.teacher_temperature,
            "none",
        )
