"""Similarity-preserving distillation: normalised similarity matrices of the batch agree."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, check_bounds
from instil.functional.feature_maps import require_same_items
from instil.functional.pairs import Pairs
from instil.functional.similarities import inner_products
from instil.objectives.bases.feature_objective import FeatureObjective


@check_bounds
def similarity_preserving_loss(
    student_features: Tensor, teacher_features: Tensor, norm: Annotated[float, Ge(1)] = 2.0
) -> Tensor:
    """Squared difference of the (N, N) similarity matrices, over ``N ** 2`` (Tung and Mori 2019).

    Args:
        student_features: (N, ...).
        teacher_features: (N, ...), of any shape.
        norm: order of the norm that scales each row of a matrix to length 1.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> similarity_preserving_loss(torch.eye(2), torch.ones(2, 3))
        tensor(0.2929)
    """
    require_same_items(student_features, teacher_features, "similarity_preserving_loss")
    student_similarities, teacher_similarities = (
        F.normalize(inner_products(features), p=norm, dim=1)
        for features in (student_features, teacher_features)
    )
    total = F.mse_loss(student_similarities, teacher_similarities, reduction="sum")
    return total / max(1, len(student_features) ** 2)


class SimilarityPreserving(FeatureObjective):
    """Agreement of the batch's similarity matrices, summed over the pairs of feature levels.

    Features are (N, ...) of any shapes.
    """

    card = Card(
        "Similarity-preserving knowledge distillation",
        "https://arxiv.org/abs/1907.09682",
        "ICCV",
        2019,
        source="relations",
        couples=True,
        published_weight=3000.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64, the deepest levels",
        equation=r"\sum_{(l, m)} \frac{1}{N^2} \left\Vert G^s_l - G^t_m \right\Vert_F^2, \quad "
        r"G_{ij} = \frac{f_i^\top f_j}{\left\Vert \left(f_i^\top f_1, \dots, f_i^\top f_N\right) "
        r"\right\Vert_2}",
        use="For networks whose feature levels differ in channels, grid or kind: flattened "
        "activations are compared only through the samples. No parameters; an N x N matrix per "
        "pair of levels. It combines with kd.",
        pitfalls="The weight depends on the batch size and the number of pairs. Samples with large "
        "activations dominate their rows. Batches without several samples of a class contain few "
        "similar pairs.",
    )

    def __init__(
        self,
        norm: Annotated[
            float,
            Ge(1),
            Doc("order of the norm of the matrix rows; 2: as in the paper; 1: as in torchdistill"),
        ] = 2.0,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "similarities of the samples"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return similarity_preserving_loss(student_features, teacher_features, self.norm)
