"""The student looks where the teacher looks: maps of activation strength agree."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, closest
from instil.functional.attention_maps import attention_map
from instil.functional.feature_maps import as_map, resize, smaller_grid
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["code", "paper"]


def attention_transfer_loss(
    student: Tensor,
    teacher: Tensor,
    power: float = 2.0,
    form: Form = "code",
    reduction: str = "mean",
) -> Tensor:
    """Distance of the attention maps of two stages, maps or tokens; the channels may differ, and the larger map is average-pooled.

    ``form="code"``: mean over the positions of the squared difference, as the authors published. ``form="paper"``: the length of the
    difference (Zagoruyko and Komodakis 2017, eq. 2). Neither has the paper's beta / 2. Raises ValueError where only one position is left:
    every map is 1 there and the loss would be zero whatever the student does.
    """
    student, teacher = as_map(student), as_map(teacher)
    grid = smaller_grid(student, teacher, "attention transfer")
    difference = attention_map(resize(student, grid), power) - attention_map(
        resize(teacher, grid), power
    )
    if form == "code":
        values = difference.square().mean(1)
    elif form == "paper":
        values = torch.linalg.vector_norm(difference, dim=1)
    else:
        raise ValueError(f"form: no form '{form}'; {closest(form, ('code', 'paper'))}")
    return apply_reduction(values, reduction)


class AttentionTransfer(FeatureObjective):
    """The student's attention maps near the teacher's, summed over the pairs; no parameters.

    ``power``: of the activations, before the mean over the channels.
    ``form``: code is the mean squared difference, as the authors published; paper its length.
    """

    card = Card(
        "Paying more attention to attention",
        "https://arxiv.org/abs/1612.03928",
        "ICLR",
        2017,
        source="features",
        algorithms=("attention",),
        deviations="form: 'code' (default, of the published results) averages the squared difference, 'paper' takes its length (eq. 2); "
        "beta / 2 is the recipe's weight; absolute value before an odd power",
        equation=r"\sum_l \frac{1}{P_l} \left\lVert \frac{a(f^s_l)}{\lVert a(f^s_l) \rVert_2} - \frac{a(f^t_l)}{\lVert a(f^t_l) \rVert_2} "
        r"\right\rVert_2^2, \quad a(f) = \frac{1}{C} \sum_c |f_c|^p",
        use="A cheap first loss on features, beside kd, for nets whose stages have like resolutions. It has no parameters, and either side may "
        "have any number of channels.",
        pitfalls="The weight in RepDistiller and mdistiller is 1000, as maps of unit length, averaged over the positions, differ little; form: "
        "paper gives much larger values and wants a smaller weight. Where stages differ in resolution the finer map is averaged first, and its "
        "detail is not taught.",
    )

    def __init__(
        self, power: Annotated[float, Ge(1)] = 2.0, form: Form = "code", pairs: Pairs = "auto"
    ):
        super().__init__(pairs)
        self.power, self.form = power, form

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        height, width = smaller_grid(as_map(student), as_map(teacher), "attention transfer")
        return nn.Identity(), f"attention on {height}x{width}"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return attention_transfer_loss(student, teacher, self.power, self.form, reduction="none")
