"""Scale-decoupled distillation: the head's logits of every region of the last map are distilled, not only those of the whole."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Outputs,
    Positive,
    closest,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.divergences import (
    decoupled_kl,
    rest_cross_entropy,
    softened_kl,
    target_cross_entropy,
)
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.pairs import feature_levels

RegionLoss = Literal["kd", "dkd", "nkd"]


def sdd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    loss: RegionLoss = "kd",
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    gamma: float = 1.5,
    complementary: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Mean over the regions of a loss of logits, times ``complementary`` in complementary regions (Wei et al. 2024).

    ``loss``: T² KL; DKD with ``alpha`` and ``beta``; or NKD with ``gamma``. Logits (N, R, C) of R regions, the first of them the whole map, and
    target (N,) give (N,) for reduction ``none``; -100 gives 0. Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student[:, 0], target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    labels = target.unsqueeze(1).expand(student.shape[:2])
    if loss == "kd":
        values = softened_kl(student, teacher, temperature) * temperature**2
    elif loss == "dkd":
        tckd, nckd = decoupled_kl(student, teacher, labels, temperature)
        values = (alpha * tckd + beta * nckd) * temperature**2
    elif loss == "nkd":
        rest = rest_cross_entropy(student, teacher, labels, temperature)
        values = target_cross_entropy(student, teacher, labels) + gamma * temperature**2 * rest
    else:
        raise ValueError(
            f"loss is kd, dkd or nkd, not '{loss}'; {closest(loss, ('kd', 'dkd', 'nkd'))}"
        )
    return apply_reduction(
        (values * region_weights(teacher, target, complementary)).mean(1), reduction, target
    )


def region_weights(teacher: Tensor, target: Tensor, complementary: float = 2.0) -> Tensor:
    """(N, R): ``complementary`` where the teacher is right about a region and wrong about the whole map, or the reverse; 1 elsewhere."""
    right = teacher.argmax(-1) == target.unsqueeze(1)
    return torch.where(right == right[:, :1], 1.0, complementary).to(full(teacher).dtype)


def region_logits(stage: Tensor, head: tuple[Tensor, Tensor], scales: int = 3) -> Tensor:
    """(N, R, C): the head (weight (C, D), bias (C,)) on the means of a map's regions: the whole, then 2 x 2, 4 x 4 ... of them, row by row.

    A map that is smaller than such a grid has some regions more than once.
    """
    grid = full(as_map(stage))
    regions = torch.cat(
        [F.adaptive_avg_pool2d(grid, 2**scale).flatten(2) for scale in range(scales)], 2
    )
    weight, bias = (part.to(regions.dtype) for part in head)
    return F.linear(regions.mT, weight, bias)


class SDD(LabelObjective):
    """A logit loss of every region at several scales; regions that contradict the whole image count more.

    Reads the last stage of ``features``, map or tokens, and the ``head`` that follows its mean, on both sides.

    ``loss``: what is distilled of each region: kd (T² KL), dkd or nkd (whose published temperature is 1).
    ``scales``: how many grids of regions: 1 x 1, 2 x 2, 4 x 4 ...
    ``temperature``: divides the logits.
    ``beta``: of dkd, the weight of the other classes.
    ``gamma``: of nkd, the weight of the other classes.
    ``complementary``: weight of the regions of which the teacher is right where it is wrong of the whole, or the reverse.

    Raises ValueError where the head does not take what the last stage gives.
    """

    card = Card(
        "Scale Decoupled Distillation",
        "https://arxiv.org/abs/2403.13512",
        "CVPR",
        2024,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The weight of complementary regions is an option in the paper and 2 in the code. In the code's NKD the other classes include the "
        "label, by a mask that leaves nothing out; here they do not. kd and dkd are zero at a match; nkd leaves the teacher's entropy.",
        equation=r"\frac{1}{R} \sum_{r=1}^{R} w_r T^2 \mathrm{KL}(p^t_{T,r} \Vert p^s_{T,r}), \quad w_r = 2 \text{ if the teacher is right on "
        r"either region } r \text{ or the whole map, not both}, \quad w_r = 1 \text{ else}",
        use="For images with several things or with fine parts: the logits of every region say what the teacher sees where, still without "
        "comparing features. No parameters; labels choose the weights, and the head is read at 21 regions at the default scales.",
        pitfalls="Both nets must end in a mean over the map and a linear head. The whole image is one of R regions and has 1 / R of the loss. "
        "Small maps have fewer than 4 x 4 positions and repeat regions: lower scales there. The authors raise the loss of the dkd form over the "
        "first epochs; use temperature 1 with nkd.",
    )
    needs: ClassVar = {"student": (("features",), ("head",)), "teacher": (("features",), ("head",))}
    samples = True

    def __init__(
        self,
        loss: RegionLoss = "kd",
        scales: Annotated[int, Ge(1)] = 3,
        temperature: Positive = 4.0,
        beta: NonNegative = 8.0,
        gamma: NonNegative = 1.5,
        complementary: NonNegative = 2.0,
    ):
        super().__init__()
        self.loss, self.scales, self.temperature = loss, scales, temperature
        self.beta, self.gamma, self.complementary = beta, gamma, complementary

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Check that head and last stage fit."""
        for side, outputs in (("student", student), ("teacher", teacher)):
            channels, width = (
                as_map(feature_levels(outputs)[-1]).shape[1],
                outputs["head"][0].shape[1],
            )
            if channels != width:
                raise ValueError(
                    f"the {side}'s head reads {width} numbers and its last stage has {channels} channels; "
                    f"end features with the stage whose mean the head reads"
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (
            region_logits(feature_levels(outputs)[-1], outputs["head"], self.scales)
            for outputs in (student, teacher)
        )
        weights = {"beta": self.beta, "gamma": self.gamma, "complementary": self.complementary}
        return sdd_loss(
            mine, theirs, batch["label"], self.loss, self.temperature, **weights, reduction="none"
        )
