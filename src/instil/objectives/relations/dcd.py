"""Discriminative and consistent distillation: in-batch contrast whose two directions agree."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_same_items
from instil.modules.adapters import NormalizedProjections
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def dcd_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    scale: float | Tensor = 1.0,
    bias: float | Tensor = 0.0,
    consistency: NonNegative = 0.5,
) -> Tensor:
    """Discriminative and consistent distillation loss (Giakoumoglou and Stathaki 2024).

    Discriminative term: cross-entropy of each sample's own teacher embedding among all N.
    Consistency term: KL divergence from the teacher's distributions over the students to the
    student's distributions over the teachers. Mean over the samples.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        scale: factor of the cosines.
        bias: constant added to the scaled cosines.
        consistency: weight of the consistency term.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> dcd_loss(torch.ones(2, 2), torch.eye(2))
        tensor(0.6931)
    """
    require_same_items(student_embedding, teacher_embedding, "dcd_loss")
    scores = pairwise_dot(l2_normalize(student_embedding), l2_normalize(teacher_embedding))
    scores = scores * scale + bias
    student_log_probs = scores.log_softmax(1)
    # The columns of the same scores are the teacher's distribution over the student's samples.
    teacher_log_probs = scores.log_softmax(0).T
    own_index = torch.arange(len(scores), device=scores.device)
    discrimination = F.nll_loss(student_log_probs, own_index, reduction="sum")
    divergence = F.kl_div(student_log_probs, teacher_log_probs, reduction="sum", log_target=True)
    return (discrimination + consistency * divergence) / max(1, len(scores))


class DCD(RelationObjective):
    """In-batch contrast of student and teacher, with the same distributions in both directions.

    Embeddings are (N, D) of any widths and go through one linear head per side. Scale and bias are
    learned.
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
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, batches of 64; alone or with kd of weight 1",
        deviations="At a match the loss is the cross-entropy among similar samples, not zero.",
        equation=r"\frac{1}{N} \sum_{i=1}^{N} \left[ -\log p_{ii} + \alpha "
        r"\mathrm{KL}\left(q_{i\cdot} \Vert p_{i\cdot}\right) \right], \quad p_{ij} = "
        r"\frac{e^{\ell_{ij}}}{\sum_k e^{\ell_{ik}}}, \quad q_{ij} = \frac{e^{\ell_{ji}}}{\sum_k "
        r"e^{\ell_{ki}}}, \quad \ell_{ij} = c z^{s\top}_i z^t_j + b",
        use="Contrastive distillation without a memory and without a temperature to tune, for "
        "classification with any two networks. Cost: a linear head per side, a scale and a bias; "
        "an N x N matrix.",
        pitfalls="The negatives are the batch, so its size changes the loss. The bias does not "
        "change the softmaxes and is never trained. Samples of the same class are pushed away from "
        "each other.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2), Doc("width of both heads' embeddings")] = 128,
        consistency: Annotated[
            NonNegative, Doc("weight of the agreement of the two directions")
        ] = 0.5,
        max_scale: Annotated[
            Positive, Doc("upper bound of the learned scale, whose initial value is e")
        ] = 10.0,
    ):
        super().__init__()
        self.dim = dim
        self.consistency = consistency
        self.max_scale = max_scale

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return NormalizedProjections(student, teacher, self.dim)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build one linear head per side, the logarithm of the scale, and the bias."""
        super().build(student, teacher)
        student_embedding, _ = self.embed(student, teacher)
        # In log space, so that the scale stays positive.
        self.log_scale = nn.Parameter(student_embedding.new_ones(1))
        self.bias = nn.Parameter(student_embedding.new_zeros(1))

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return dcd_loss(
            student_embedding,
            teacher_embedding,
            self.log_scale.exp().clamp_max(self.max_scale),
            self.bias,
            self.consistency,
        )
