"""Double similarity: residual attention between feature levels, and correlation of categories."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds, to_float32
from instil.functional.attention_maps import attention_map
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.errors import squared_error
from instil.functional.feature_maps import (
    as_map,
    common_sizes,
    grid_of,
    require_same_items,
    resize,
    resize_to_common,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.pooling import pool_cells
from instil.objectives.bases.feature_objective import FeatureObjective


@check_bounds
def psd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    power: Annotated[float, Ge(1)] = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Pixel-wise similarity: squared difference of residual attention maps (Feng et al. 2021).

    A residual is the difference of two levels' unit attention maps, scaled to unit length. Mean
    over the positions and the pairs of levels; all levels are pooled to the smallest grid.

    Args:
        student_features: levels (N, C, *grid) of any channels.
        teacher_features: the same number of levels (N, C, *grid).
        power: exponent of the activations in an attention map, >= 1.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if there are fewer than two levels or the numbers of levels differ.

    Example:
        >>> import torch
        >>> level = torch.eye(2).reshape(1, 1, 2, 2)
        >>> psd_loss([level, torch.ones(1, 1, 2, 2)], [torch.ones(1, 1, 2, 2), level])
        tensor(1.0000)
    """
    if len(student_features) != len(teacher_features) or len(student_features) < 2:
        raise ValueError(
            "features: residual attention compares levels. Expected the same number on both sides, "
            f"at least two, got {len(student_features)} and {len(teacher_features)}."
        )
    sides = [[as_map(level) for level in side] for side in (student_features, teacher_features)]
    maps = [*sides[0], *sides[1]]
    grid = functools.reduce(common_sizes, map(grid_of, maps))
    # Every pair of levels once: the residual of the reversed pair has the opposite sign.
    earlier, later = torch.triu_indices(len(student_features), len(student_features), 1)
    residuals = []
    for side in sides:
        attention = torch.stack(
            [attention_map(resize(to_float32(level), grid), power) for level in side]
        )
        residuals.append(l2_normalize(attention[later] - attention[earlier]))
    return apply_reduction((residuals[0] - residuals[1]).square().mean((0, 2)), reduction)


@check_bounds
def csd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 4.0,
    pool: Annotated[int, Ge(1)] = 2,
    reduction: str = "mean",
) -> Tensor:
    """Category-wise similarity: squared difference of channel correlations (Feng et al. 2021).

    The correlations (C, C) are products of the channels' softmaxes over the positions. Mean over
    the C * C entries.

    Args:
        student_logits: (N, C, *grid).
        teacher_logits: (N, C, *grid).
        temperature: softmax temperature, > 0.
        pool: size of the patches of positions that are averaged first.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, or if the channels differ.

    Example:
        >>> import torch
        >>> student_logits = torch.tensor([[[[0.0, 2.0]], [[2.0, 0.0]]]])
        >>> csd_loss(student_logits, torch.zeros(1, 2, 1, 2), temperature=1.0, pool=1)
        tensor(0.0841)
    """
    require_same_items(student_logits, teacher_logits, "csd_loss")
    if student_logits.shape[1] != teacher_logits.shape[1]:
        raise ValueError(
            "logits: the categories differ. Expected the same channels on both sides: the student "
            f"has {student_logits.shape[1]} channels, the teacher {teacher_logits.shape[1]}."
        )
    correlations = []
    for logits in resize_to_common(student_logits, teacher_logits):
        pooled = pool_cells(logits, pool).flatten(2)
        shares = (pooled / temperature).softmax(2)
        correlations.append(pairwise_dot(shares, shares))
    return apply_reduction(squared_error(correlations[0], correlations[1]), reduction)


class DSD(FeatureObjective):
    """Agreement of the residual attention of the levels and of the correlation of the categories.

    Features are (N, C, *grid), logits (N, *grid, C).
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
        published_weight=1.0,
        weight_setting="the code of CIRKD, Cityscapes: the options are the weights",
        deviations="Weights, pooling and temperature follow the code of CIRKD, which gave the "
        "numbers used for comparison. Levels of several sizes are pooled to the smallest.",
        equation=r"\lambda_p \frac{2}{S(S-1)} \sum_{m < n} \frac{1}{P} \left\Vert r^s_{mn} - "
        r"r^t_{mn} \right\Vert^2 + \lambda_c \frac{1}{C^2} \left\Vert G^s - G^t \right\Vert_F^2, "
        r"\quad r_{mn} = \frac{a_n - a_m}{\Vert a_n - a_m \Vert}, \quad G = \Sigma \Sigma^\top, "
        r"\quad \Sigma_c = \mathrm{softmax}_{x}\left(z_{cx} / \tau\right)",
        use="For semantic segmentation with networks of several levels: it transfers how "
        "attention moves between levels, and which classes share positions. No parameters, and "
        "the channels of the levels may differ.",
        pitfalls="Both terms are means of tiny squares, hence the large weights; they fit the 19 "
        "classes and the resolution of Cityscapes. The classes must be the same, in the same "
        "order. A change of attention between two equal maps has no direction and counts as zero.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("features",), ("logits",)),
    }

    def __init__(
        self,
        pixel: Annotated[
            NonNegative, Doc("weight of the residual attention, as published for Cityscapes")
        ] = 1000.0,
        category: Annotated[
            NonNegative,
            Doc("weight of the correlation of the categories, as published for Cityscapes"),
        ] = 10.0,
        power: Annotated[
            float, Ge(1), Doc("exponent of the activations in an attention map")
        ] = 2.0,
        temperature: Annotated[
            Positive, Doc("temperature of the logits' softmax over positions")
        ] = 4.0,
        pool: Annotated[
            int, Ge(1), Doc("size of the patches of logits that are averaged first, in positions")
        ] = 2,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.pixel = pixel
        self.category = category
        self.power = power
        self.temperature = temperature
        self.pool = pool

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels.

        Raises:
            ValueError: if there is a single pair, or the logits are not maps.
        """
        super().build(student, teacher)
        if student["logits"].ndim < 4:
            raise ValueError(
                "logits: dsd correlates the categories over positions. Expected logits "
                f"(N, H, W, C) or (N, D, H, W, C), got shape {tuple(student['logits'].shape)}."
            )
        # Evaluated once here, so that its errors come before the first step.
        self(student, teacher, {})

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels = feature_levels(student)
        teacher_levels = feature_levels(teacher)
        attention = psd_loss(
            [student_levels[i] for i, _ in self.matched],
            [teacher_levels[j] for _, j in self.matched],
            self.power,
            "none",
        )
        categories = csd_loss(
            student["logits"].movedim(-1, 1),
            teacher["logits"].movedim(-1, 1),
            self.temperature,
            self.pool,
            "none",
        )
        return self.pixel * attention + self.category * categories
