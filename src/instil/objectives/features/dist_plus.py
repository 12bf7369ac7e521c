"""Pearson correlation of feature maps over channels and, at each position, over samples."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, NonNegative, check_bounds
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

EPSILON = 1e-8
"""Added to the product of the norms, so that the correlation with a constant is 0."""


@check_bounds
def dist_plus_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    channel_weight: NonNegative = 1.0,
    spatial_weight: NonNegative = 1.0,
) -> Tensor:
    """Feature-level relations of DIST+ (Huang et al. 2025).

    The channel relation is one minus the Pearson correlation over the channels, averaged over
    positions and samples. The spatial relation is one minus the correlation over the samples of the
    sums over channels, averaged over positions.

    Args:
        student_features: (N, C, *grid), a grid of two or three dimensions.
        teacher_features: (N, C, *grid), a grid of two or three dimensions.
        channel_weight: weight of the channel relation.
        spatial_weight: weight of the spatial relation.

    Returns:
        Scalar: the samples of a batch depend on each other.

    Raises:
        ValueError: if the shapes differ or the features are not maps.

    Example:
        >>> import torch
        >>> student_features = torch.arange(24.0).view(2, 3, 2, 2).sin()
        >>> dist_plus_loss(student_features, student_features.roll(1, 1))
        tensor(1.5084)
    """
    student, teacher = require_same_shape(student_features, teacher_features, "dist_plus_loss")
    if student.ndim < 4:
        raise ValueError(
            "dist_plus_loss: the features are not maps. Expected (N, C, *grid), got "
            f"{tuple(student.shape)}."
        )
    loss = student.new_zeros(())
    if channel_weight:
        loss = loss + channel_weight * (1 - _correlation(student, teacher, 1).mean())
    if spatial_weight:
        sums = _correlation(student.sum(1), teacher.sum(1), 0)
        loss = loss + spatial_weight * (1 - sums.mean())
    return loss


def _correlation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Pearson correlation over ``dim``."""
    student = student - student.mean(dim, keepdim=True)
    teacher = teacher - teacher.mean(dim, keepdim=True)
    norm = torch.linalg.vector_norm
    product = norm(student, dim=dim) * norm(teacher, dim=dim)
    correlation: Tensor = (student * teacher).sum(dim) / (product + EPSILON)
    return correlation


class DISTPlus(FeatureObjective):
    """Correlation of student and teacher feature maps over channels and over samples.

    These are the feature-level relations of DIST+; use them with ``dist`` for those of the logits.
    The loss is summed over the pairs of levels.
    """

    card = Card(
        "DIST+: Knowledge Distillation From a Stronger Adaptive Teacher",
        "https://ieeexplore.ieee.org/document/10938241",
        "TPAMI",
        2025,
        source="features",
        tasks=("classification", "segmentation", "detection"),
        couples=True,
        deviations="The authors have published no code, and the text of the paper was not "
        "available: the formula is that of the implementation in torchdistill. There the channel "
        "term is the correlation itself, which training decreases; here it is one minus the "
        "correlation. The paper also adapts the teacher to the student (teacher acclimation), "
        "which is not implemented. An adapter maps student levels of other channels or size. By "
        "default only the deepest pair is compared, as in the configuration of torchdistill.",
        equation=r"\iota \Big( 1 - \frac{1}{N P} \sum_{n,p} \rho_c\big(f^s_{n \cdot p}, f^t_{n "
        r"\cdot p}\big) \Big) + \kappa \Big( 1 - \frac{1}{P} \sum_p "
        r"\rho_n\big(\textstyle\sum_c f^s_{\cdot c p}, \sum_c f^t_{\cdot c p}\big) \Big), \quad "
        r"\rho \text{ Pearson correlation}",
        use="With dist, for a teacher that is much stronger than the student, mainly for dense "
        "predictions. Scale and offset of the features have no effect.",
        pitfalls="The spatial relation needs several different samples; with one sample it has no "
        "gradient. torchdistill combines both terms of weight 1 with dist (beta = gamma = 2), "
        "multiplies all of them by 2 and adds the label loss.",
    )
    deepest = True

    def __init__(
        self,
        channel_weight: Annotated[
            NonNegative, Doc("weight of the correlation over the channels of each position")
        ] = 1.0,
        spatial_weight: Annotated[
            NonNegative, Doc("weight of the correlation over the samples at each position")
        ] = 1.0,
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: the deepest levels"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.channel_weight = channel_weight
        self.spatial_weight = spatial_weight

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return dist_plus_loss(
            connection(student_features),
            as_map(teacher_features),
            self.channel_weight,
            self.spatial_weight,
        )
