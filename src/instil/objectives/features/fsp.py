"""Flow of the solution procedure: products of the channels of consecutive feature levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import (
    POOLS,
    common_sizes,
    grid_of,
    match_dimensions,
    require_dims,
    require_same_shape,
)
from instil.functional.gram import gram
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, consecutive_pairs, require_two_stages
from instil.objectives.bases.feature_objective import FeatureObjective

Pool = Literal["max", "average"]
Form = Literal["mean", "paper", "columns"]
FORMS = ("mean", "paper", "columns")


MAX_POOLS = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
"""Max-pooling to a grid, by the number of dimensions of the grid."""


def fsp_matrix(first: Tensor, second: Tensor, pool: Pool = "max") -> Tensor:
    """Products of the channels of two feature maps (Yim et al. 2017, Eq. 1).

    The larger map is pooled to the smaller grid, and the products are averaged over its positions.

    Args:
        first: feature map (N, C, *grid).
        second: feature map (N, D, *grid), of any size.
        pool: ``"max"`` or ``"average"``.

    Returns:
        (N, C, D).

    Raises:
        ValueError: if ``pool`` is unknown.
    """
    require_choice("pool", pool, ("max", "average"))
    for features in (first, second):
        require_dims(features, 3, "features")
    grid = common_sizes(grid_of(first), grid_of(second))
    pools = MAX_POOLS if pool == "max" else POOLS
    maps = []
    for feature_map in (first, second):
        if grid_of(feature_map) == grid:
            maps.append(feature_map)
        else:
            matched = match_dimensions(to_float32(feature_map), len(grid))
            maps.append(pools[len(grid)](matched, grid))
    return gram(maps[0], maps[1], len(grid))


def fsp_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    pool: Pool = "max",
    form: Form = "mean",
    reduction: str = "mean",
) -> Tensor:
    """Distance of the FSP matrices of consecutive levels; sum over the matrices.

    Args:
        student_features: feature maps (N, C, *grid), shallow to deep.
        teacher_features: feature maps with the same channels.
        pool: pooling of the larger map of a matrix, ``"max"`` or ``"average"``.
        form: ``"mean"`` is the mean squared difference over the entries; ``"paper"`` is the sum
            (Yim et al. 2017, Eq. 2); ``"columns"`` is the sum of the lengths of the columns of the
            difference.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if there are fewer than two levels, the channels differ, or an option is
            unknown.

    Example:
        >>> import torch
        >>> student, teacher = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
        >>> fsp_loss([student, student], [teacher, teacher], form="paper")
        tensor(4.)
    """
    require_choice("form", form, FORMS)
    require_two_stages(len(student_features), "FSP")
    student_pairs = itertools.pairwise(student_features)
    teacher_pairs = itertools.pairwise(teacher_features)
    terms = []
    for student_pair, teacher_pair in zip(student_pairs, teacher_pairs, strict=True):
        student_matrix, teacher_matrix = require_same_shape(
            fsp_matrix(*student_pair, pool), fsp_matrix(*teacher_pair, pool), "fsp_loss"
        )
        difference = student_matrix - teacher_matrix
        if form == "columns":
            terms.append(torch.linalg.vector_norm(difference, dim=1).sum(1))
        else:
            squares = difference.square().flatten(1)
            terms.append(squares.mean(1) if form == "mean" else squares.sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


class FSP(FeatureObjective):
    """FSP matrices of consecutive student levels near the teacher's; each level has an adapter."""

    card = Card(
        "A gift from knowledge distillation: fast optimization, network minimization and transfer "
        "learning",
        "https://doi.org/10.1109/CVPR.2017.754",
        "CVPR",
        2017,
        source="features",
        deviations="The loss is the mean over the entries (form: 'paper' is the sum, Eq. 2). "
        "Average pooling is that of RepDistiller. A 1x1 convolution adapts student levels with "
        "other channels; in the paper the channels are equal. The paper trains on this loss alone, "
        "in a separate stage.",
        equation=r"\sum_l \frac{1}{C_l C_{l+1}} \lVert G^s_l - G^t_l \rVert_F^2, \quad G_l = "
        r"\frac{1}{P} \sum_p f_{l,p}\, f_{l+1,p}^\top",
        use="For student and teacher of one family with levels of similar widths. It transfers how "
        "features change between levels, not the features, and was published as an "
        "initialisation. It has no parameters if the widths are equal, and stores the products of "
        "two widths for each sample.",
        pitfalls="The weight 50 in the commands of RepDistiller has no effect: it trains on this "
        "loss alone, in a separate stage. Values are proportional to the fourth power of the scale "
        "of the features, so tune the weight for each teacher. Positions are ignored. If the "
        "widths differ, the learned convolution can absorb part of the loss.",
    )

    def __init__(
        self,
        pool: Annotated[
            Pool, Doc("pooling of the larger of two levels to the size of the other: max, average")
        ] = "max",
        form: Annotated[
            Form,
            Doc(
                "mean: mean over the entries of a matrix; paper: their sum; columns: sum of the "
                "lengths of the columns, as in torchdistill"
            ),
        ] = "mean",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.pool = pool
        self.form = form

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        return consecutive_pairs(student, teacher, self.pairs, self)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_maps, teacher_maps = self.adapted_levels(student, teacher)
        return fsp_loss(student_maps, teacher_maps, self.pool, self.form, "none")
