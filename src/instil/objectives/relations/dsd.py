"""Double similarity: how attention moves from stage to stage, and which categories go together, as in the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import avg_pool2d

from instil.core import Batch, Card, NonNegative, Outputs, Positive, to_float32
from instil.functional.attention_maps import attention_map
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, resize, resize_to_common
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.objectives.bases.feature_objective import FeatureObjective


def psd_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    power: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Pixel-wise similarity: squared difference of residual attention maps (Feng et al. 2021), mean over positions and pairs of stages.

    As many stages (N, C, H, W) on either side, of any channels; all are pooled to the smallest grid. A residual is the difference of two
    stages' unit attention maps, itself of unit length. Raises ValueError for fewer than two stages or another number on each side.
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(
            f"residual attention needs two or more stages, as many of both sides, not {len(student)} and {len(teacher)}"
        )
    sides = [[as_map(stage) for stage in side] for side in (student, teacher)]
    height, width = (min(stage.shape[axis] for side in sides for stage in side) for axis in (2, 3))
    earlier, later = torch.triu_indices(len(student), len(student), 1)
    residuals = []
    for side in sides:
        attention = torch.stack(
            [attention_map(resize(to_float32(stage), (height, width)), power) for stage in side]
        )
        residuals.append(l2_normalize(attention[later] - attention[earlier]))
    return apply_reduction((residuals[0] - residuals[1]).square().mean((0, 2)), reduction)


def csd_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    pool: int = 2,
    reduction: str = "mean",
) -> Tensor:
    """Category-wise similarity: squared difference of the correlations (C, C) of the channels' softmaxes over positions (Feng et al. 2021).

    Maps (N, C, H, W) of the same channels, average-pooled by ``pool`` and divided by ``temperature`` first; mean over the C * C entries.
    Raises ValueError where the channels differ.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"categories are compared one by one: the student has {student.shape[1]} channels, the teacher {teacher.shape[1]}"
        )
    correlations = []
    for side in resize_to_common(student, teacher):
        shares = (avg_pool2d(side, pool, ceil_mode=True).flatten(2) / temperature).softmax(2)
        correlations.append(pairwise_dot(shares, shares))
    return apply_reduction(squared_error(correlations[0], correlations[1]), reduction)


class DSD(FeatureObjective):
    """Residual attention maps of the stages agree, and so does the correlation of the categories in the logits (N, H, W, C).

    ``pixel``: weight of the residual attention.
    ``category``: weight of the categories' correlation; with the first as published for Cityscapes.
    ``power``: of the activations in an attention map.
    ``temperature``: divides the logits before their softmax over positions.
    ``pool``: side of the patches of logits that are averaged first.
    """

    card = Card(
        "Double Similarity Distillation for Semantic Image Segmentation",
        "https://arxiv.org/abs/2107.08591",
        "TIP",
        2021,
        source="relations",
        finite_logits=True,
        algorithms=("attention",),
        tasks=("segmentation",),
        deviations="weights, pooling and temperature as in the code of CIRKD, which gave the numbers that are compared with; stages of several "
        "sizes are pooled to the smallest",
        equation=r"\lambda_p \frac{2}{S(S-1)} \sum_{m < n} \frac{1}{P} \left\Vert r^s_{mn} - r^t_{mn} \right\Vert^2 + \lambda_c \frac{1}{C^2} "
        r"\left\Vert G^s - G^t \right\Vert_F^2, \quad r_{mn} = \frac{a_n - a_m}{\Vert a_n - a_m \Vert}, \quad G = \Sigma \Sigma^\top, "
        r"\quad \Sigma_c = \mathrm{softmax}_{x}\left(z_{cx} / \tau\right)",
        use="For semantic segmentation with nets of several stages: where attention moves between stages, and which classes share places. No "
        "parameters, and the stages' channels may differ.",
        pitfalls="Both terms are means of tiny squares, hence the large weights; they belong to the 19 classes and the resolution of Cityscapes. "
        "The classes must be the same and in the same order. A change of attention from a stage to a like one has no direction and counts "
        "as zero.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("features",), ("logits",)),
    }

    def __init__(
        self,
        pixel: NonNegative = 1000.0,
        category: NonNegative = 10.0,
        power: Annotated[float, Ge(1)] = 2.0,
        temperature: Positive = 4.0,
        pool: Annotated[int, Ge(1)] = 2,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        self.pixel, self.category, self.power, self.temperature, self.pool = (
            pixel,
            category,
            power,
            temperature,
            pool,
        )

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the stages. Raises ValueError for a single pair, and where the logits are no maps."""
        super().build(student, teacher)
        if student["logits"].ndim != 4:
            raise ValueError(
                f"dsd correlates the categories over positions: it needs logits (N, H, W, C), not {tuple(student['logits'].shape)}"
            )
        self(student, teacher, {})

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        attention = psd_loss(
            [mine[i] for i, _ in self.matched],
            [theirs[j] for _, j in self.matched],
            self.power,
            "none",
        )
        logits = student["logits"].movedim(-1, 1), teacher["logits"].movedim(-1, 1)
        return self.pixel * attention + self.category * csd_loss(
            *logits, self.temperature, self.pool, "none"
        )
