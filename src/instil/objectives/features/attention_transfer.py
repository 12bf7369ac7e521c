"""Attention transfer: the student's spatial attention maps match the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, check_bounds
from instil.functional.attention_maps import attention_map
from instil.functional.choices import require_choice
from instil.functional.feature_maps import (
    as_map,
    describe_grid,
    require_same_items,
    resize,
    smaller_grid,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["code", "paper"]
FORMS = ("code", "paper")


@check_bounds
def attention_transfer_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    power: Annotated[float, Ge(1)] = 2.0,
    form: Form = "code",
    reduction: str = "mean",
) -> Tensor:
    """Attention transfer loss (Zagoruyko and Komodakis 2017, Eq. 2).

    Distance of the attention maps of two feature levels at unit length. The larger map is
    average-pooled to the smaller grid. Neither form includes the paper's factor beta / 2.

    Args:
        student_features: feature map (N, C, *grid) or tokens (N, L, C).
        teacher_features: feature map or tokens; channels and size may differ.
        power: exponent of the absolute activations, >= 1.
        form: ``"code"`` is the mean squared difference over the positions, as published by the
            authors; ``"paper"`` is the length of the difference.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, the smaller grid has one position or the form
            is unknown.

    Example:
        >>> import torch
        >>> attention_transfer_loss(torch.ones(1, 3, 2, 2), torch.eye(2)[None, None])
        tensor(0.1464)
    """
    require_same_items(student_features, teacher_features, "attention_transfer_loss")
    require_choice("form", form, FORMS)
    student_map = as_map(student_features)
    teacher_map = as_map(teacher_features)
    # With one position every attention map is 1, and the loss would always be zero.
    grid = smaller_grid(student_map, teacher_map, "attention transfer")
    student_attention = attention_map(resize(student_map, grid), power)
    difference = student_attention - attention_map(resize(teacher_map, grid), power)
    if form == "code":
        return apply_reduction(difference.square().mean(1), reduction)
    return apply_reduction(torch.linalg.vector_norm(difference, dim=1), reduction)


class AttentionTransfer(FeatureObjective):
    """Attention maps of the student near the teacher's; sum over the pairs, no parameters."""

    card = Card(
        "Paying more attention to attention",
        "https://arxiv.org/abs/1612.03928",
        "ICLR",
        2017,
        source="features",
        algorithms=("attention",),
        published_weight=1000.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64",
        deviations="form: 'code' (default, of the published results) is the mean squared "
        "difference, 'paper' the length of the difference (Eq. 2). beta / 2 is part of the "
        "recipe's weight. The absolute value is taken before an odd power.",
        equation=r"\sum_l \frac{1}{P_l} \left\lVert \frac{a(f^s_l)}{\lVert a(f^s_l) \rVert_2} - "
        r"\frac{a(f^t_l)}{\lVert a(f^t_l) \rVert_2} \right\rVert_2^2, \quad a(f) = \frac{1}{C} "
        r"\sum_c |f_c|^p",
        use="A cheap first feature loss in addition to kd, for networks whose levels have similar "
        "resolutions. It has no parameters, and both sides may have any number of channels.",
        pitfalls="Maps of unit length, averaged over the positions, differ little, so that the "
        "weight must be large. form: paper gives much larger values and needs a smaller weight. If "
        "the resolutions differ, the finer map is averaged first and its detail is not "
        "transferred.",
    )

    def __init__(
        self,
        power: Annotated[
            float, Ge(1), Doc("exponent of the activations before the mean over the channels")
        ] = 2.0,
        form: Annotated[
            Form,
            Doc("code: mean squared difference, as published; paper: length of the difference"),
        ] = "code",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.power = power
        self.form = form

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        grid = smaller_grid(as_map(student), as_map(teacher), "attention transfer")
        return nn.Identity(), f"attention on {describe_grid(grid)}"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return attention_transfer_loss(
            student_features, teacher_features, self.power, self.form, reduction="none"
        )
