"""Flow of the solution procedure: how the channels of one stage go with those of the next is as in the teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Card, closest, to_float32
from instil.functional.feature_maps import require_same_shape
from instil.functional.gram import gram
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.stage_flow_objective import StageFlow, require_two_stages

Pool = Literal["max", "average"]
Form = Literal["mean", "paper", "columns"]


def fsp_matrix(first: Tensor, second: Tensor, pool: Pool = "max") -> Tensor:
    """Products of the channels of two maps (N, C, H, W), mean over the positions of the smaller one: (N, C, D) (Yim et al. 2017, eq. 1)."""
    if pool not in ("max", "average"):
        raise ValueError(f"pool: no pool '{pool}'; {closest(pool, ('max', 'average'))}")
    height, width = (min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True))
    shrink = F.adaptive_max_pool2d if pool == "max" else F.adaptive_avg_pool2d
    first, second = (
        stage if stage.shape[2:] == (height, width) else shrink(to_float32(stage), (height, width))
        for stage in (first, second)
    )
    return gram(first, second)


def fsp_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    pool: Pool = "max",
    form: Form = "mean",
    reduction: str = "mean",
) -> Tensor:
    """Distance of the FSP matrices of consecutive stages, summed over those; stages are maps, shallow to deep, with the teacher's channels.

    ``form``: mean over the entries of the squared difference; paper sums it (Yim et al. 2017, eq. 2); columns sums the lengths of its columns.
    With ``reduction="none"`` one value a sample. Raises ValueError for fewer than two stages and where the channels differ.
    """
    if form not in ("mean", "paper", "columns"):
        raise ValueError(f"form: no form '{form}'; {closest(form, ('mean', 'paper', 'columns'))}")
    require_two_stages(len(student), "FSP")
    terms = []
    for (a, b), (c, d) in zip(
        itertools.pairwise(student), itertools.pairwise(teacher), strict=True
    ):
        mine, theirs = require_same_shape(
            fsp_matrix(a, b, pool), fsp_matrix(c, d, pool), "fsp_loss"
        )
        difference = mine - theirs
        if form == "columns":
            terms.append(torch.linalg.vector_norm(difference, dim=1).sum(1))
        else:
            squares = difference.square().flatten(1)
            terms.append(squares.mean(1) if form == "mean" else squares.sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


class FSP(StageFlow):
    """The student's FSP matrices, from each paired stage to the next, near the teacher's; stages pass an adapter each.

    ``pool``: how the larger of two stages is brought to the size of the other.
    ``form``: mean over the entries of a matrix; paper is their sum; columns the sum of its columns' lengths, as torchdistill has it.
    """

    card = Card(
        "A gift from knowledge distillation: fast optimization, network minimization and transfer learning",
        "https://doi.org/10.1109/CVPR.2017.754",
        "CVPR",
        2017,
        source="features",
        deviations="mean over the entries (form: 'paper' is the sum, eq. 2); average pooling is RepDistiller's; student stages whose channels "
        "differ pass a 1x1 convolution, in the paper they agree; the paper trains on this loss alone, in a stage of its own",
        equation=r"\sum_l \frac{1}{C_l C_{l+1}} \lVert G^s_l - G^t_l \rVert_F^2, \quad G_l = \frac{1}{P} \sum_p f_{l,p}\, f_{l+1,p}^\top",
        use="Student and teacher of one family with stages of like widths: it teaches how features change from stage to stage, not the features, "
        "and was published as an initialisation. It has no parameters where the widths agree, and holds the products of two widths for each sample.",
        pitfalls="RepDistiller's weight is 50. Values grow with the fourth power of the features' scale, so that it must be set for each teacher. "
        "Positions do not count. Where widths differ the learned convolution can take part of the loss on itself.",
    )

    def __init__(self, pool: Pool = "max", form: Form = "mean", pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.pool, self.form = pool, form

    def flow(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return fsp_loss(student, teacher, self.pool, self.form, "none")
