"""Attention-based feature distillation: each teacher stage finds the student stages that it teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.attention_maps import FAINTEST, attention_map
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, NormedLinear
from instil.objectives.bases.normed_objective import NormedObjective


def afd_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], attention: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared differences of attention maps of S student and T teacher stages, weighted by attention (N, T, S) (Ji et al. 2021).

    Mean over the positions, sum over the stages. Stages are maps of any shapes; the student's strength is pooled to the teacher's positions. With
    ``reduction="none"`` one value a sample. Raises ValueError where no teacher stage has more than one position.
    """
    if all(stage.shape[2] * stage.shape[3] == 1 for stage in teacher):
        raise ValueError(
            "attention-based feature distillation needs a teacher stage with more than one position"
        )
    terms, strengths = [], [_strength(to_float32(each)) for each in student]
    for number, stage in enumerate(teacher):
        theirs, grid = attention_map(stage), (stage.shape[2], stage.shape[3])
        mine = [
            F.normalize(F.adaptive_avg_pool2d(strength, grid).flatten(1), dim=1)
            for strength in strengths
        ]
        apart = torch.stack([squared_error(each, theirs) for each in mine], 1)
        terms.append((attention[:, number] * apart).sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


def _strength(stage: Tensor) -> Tensor:
    """Sum of the channels' squares, 1 at the strongest position, (N, 1, H, W)."""
    strength = stage.square().sum(1, keepdim=True)
    return strength / strength.detach().amax((2, 3), keepdim=True).clamp_min(FAINTEST)


class StageAttention(nn.Module):
    """How much each teacher stage looks at each student stage, from their mean channels: (N, T, S), a distribution over S."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int], width: int, norm: Norm):
        super().__init__()
        self.keys = nn.ModuleList(NormedLinear(channels, width, norm) for channels in student)
        self.queries = nn.ModuleList(NormedLinear(channels, width, norm) for channels in teacher)
        self.bilinear = NormedLinear(width, width * len(teacher), norm)
        self.student_place = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(student), width)))
        self.teacher_place = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(teacher), width)))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        keys = torch.stack(
            [made(stage.mean((2, 3))) for made, stage in zip(self.keys, student, strict=True)], 1
        ).relu()
        queries = torch.stack(
            [made(stage.mean((2, 3))) for made, stage in zip(self.queries, teacher, strict=True)], 1
        )
        weighed = self.bilinear(keys).unflatten(2, (len(self.queries), -1))
        energy = (
            torch.einsum("nstd,ntd->nts", weighed, queries)
            + self.teacher_place @ self.student_place.T
        )
        return (energy / math.sqrt(self.student_place.shape[1])).softmax(2)


class AFD(NormedObjective):
    """Each teacher stage teaches all student stages, most those that its learned attention finds like it.

    ``width``: of queries and keys.
    """

    card = Card(
        "Show, attend and distill: knowledge distillation via attention-based feature matching",
        "https://arxiv.org/abs/2102.02973",
        "AAAI",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        deviations="queries and keys are normalised sample by sample; norm: 'batch' is the code's",
        equation=r"\sum_t \sum_s \alpha_{ts} \frac{1}{P_t} \lVert \phi(f^s_s) - \phi(f^t_t) \rVert_2^2, \quad \alpha_{t\cdot} = \mathrm{softmax}_s "
        r"\frac{q_t^\top W_t k_s + p_t^\top p_s}{\sqrt{d}}, \quad \phi(f) = \frac{a}{\lVert a \rVert_2}, \; a = \frac{1}{C} \sum_c f_c^2",
        use="Nets of different depth, where it is not known which stage should teach which: the pairing is learned, for each sample. Only "
        "positions are compared, so channels need not agree. It costs a few linear layers, and every student stage is pooled to every teacher "
        "stage.",
        pitfalls="The authors' weight is 200 for WRN-16-2 <- WRN-40-2 on CIFAR-100, as maps of unit length differ little. Which channels are "
        "strong is not taught. Attention can lower the loss by looking at stages that are alike already.",
    )

    def __init__(
        self, width: Annotated[int, Ge(1)] = 128, norm: Literal["group", "batch"] = "group"
    ):
        super().__init__(norm)
        self.width = width

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Every stage with every stage."""
        return [(i, j) for j in range(len(teacher)) for i in range(len(student))]

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "by attention"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the attention over all stages of both sides."""
        super().build(student, teacher)
        mine, theirs = (
            [as_map(stage) for stage in feature_levels(side)] for side in (student, teacher)
        )
        made = StageAttention(
            [s.shape[1] for s in mine], [t.shape[1] for t in theirs], self.width, self.norm
        )
        self.adapters = nn.ModuleList([made.to(mine[0].device, to_float32(mine[0]).dtype)])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        attend = self.adapters[0]
        mine, theirs = (
            [match_dtype(attend, to_float32(as_map(stage))) for stage in feature_levels(side)]
            for side in (student, teacher)
        )
        return self.reduce_if_coupled(afd_loss(mine, theirs, attend(mine, theirs), "none"))
