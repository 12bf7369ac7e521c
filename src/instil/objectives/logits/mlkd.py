"""Predictions agree at three levels: each instance, all pairs of a batch, all pairs of classes; and at several temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def mlkd_loss(
    student: Tensor,
    teacher: Tensor,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    batch: float = 1.0,
    classes: float = 1.0,
) -> Tensor:
    """Sum over the temperatures of T² KL(teacher || student) + batch level + class level (Jin et al. 2023).

    Logits (..., C) of all items together give a scalar; ``batch`` and ``classes`` weigh the levels. Raises ValueError for one class and where the
    shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    student, teacher = full(student).flatten(0, -2), full(teacher).flatten(0, -2)
    levels = [
        softened_kl(student, teacher, t).mean() * t**2
        + batch * mlkd_batch_loss(student, teacher, t)
        + classes * mlkd_class_loss(student, teacher, t)
        for t in temperatures
    ]
    return torch.stack(levels).sum()


def mlkd_batch_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Squared difference of the similarities P Pᵀ of all pairs of items, summed and divided by N; logits (N, C) give a scalar, without T²."""
    mine, theirs = (
        (full(student) / temperature).softmax(-1),
        (full(teacher) / temperature).softmax(-1),
    )
    return (theirs @ theirs.mT - mine @ mine.mT).square().sum() / max(1, len(mine))


def mlkd_class_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Squared difference of the correlations Pᵀ P of all pairs of classes, summed and divided by C; logits (N, C) give a scalar, without T²."""
    mine, theirs = (
        (full(student) / temperature).softmax(-1),
        (full(teacher) / temperature).softmax(-1),
    )
    return (theirs.mT @ theirs - mine.mT @ mine).square().sum() / mine.shape[-1]


class MLKD(LogitObjective):
    """Instances, similarities of instances and correlations of classes, at evenly spread temperatures; logits (..., C).

    ``lowest``: the lowest temperature.
    ``highest``: the highest temperature.
    ``count``: how many temperatures, evenly spread; one is the lowest.
    ``batch``: weight of the batch level relative to the instances; its memory grows with the square of the items.
    ``classes``: weight of the class level relative to the instances.
    """

    card = Card(
        "Multi-level Logit Distillation",
        "https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html",
        "CVPR",
        2023,
        source="logits",
        labels=("single",),
        couples=True,
        deviations="The code multiplies losses that are already means by masks of confidence, which only scales them: left out. It takes a weakly "
        "and a strongly augmented view, the strong one for the instances alone, and the weak one in its place at two temperatures; here the views "
        "of a batch are items like any other.",
        equation=r"\sum_{T} \Big( \frac{T^2}{N} \sum_{n=1}^{N} \mathrm{KL}(p^t_n \Vert p^s_n) + \frac{b}{N} \Vert P^s P^{s\top} - P^t P^{t\top} "
        r"\Vert_F^2 + \frac{c}{C} \Vert P^{s\top} P^s - P^{t\top} P^t \Vert_F^2 \Big), \quad P = \mathrm{softmax}(z / T), \quad T \in \lbrace 2, "
        r"\dots, 6 \rbrace",
        use="kd with what a batch says about its samples and its classes added, at several temperatures at once, so that none has to be chosen. "
        "No labels, no parameters; an N x N and a C x C table for each temperature.",
        pitfalls="The defaults sum T² over five temperatures, 90 in all where kd at T = 4 has 16: the same weight pulls harder. The class level "
        "is not divided by N and grows with the square of the batch. The authors' runs use strong augmentation, and 480 or 960 epochs for some "
        "pairs where others publish 240, so their numbers are not comparable with those of kd or dkd.",
    )

    def __init__(
        self,
        lowest: Positive = 2.0,
        highest: Positive = 6.0,
        count: Annotated[int, Ge(1)] = 5,
        batch: NonNegative = 1.0,
        classes: NonNegative = 1.0,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.lowest, self.highest, self.count, self.batch, self.classes = (
            lowest,
            highest,
            count,
            batch,
            classes,
        )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        apart = (self.highest - self.lowest) / max(1, self.count - 1)
        return mlkd_loss(
            student,
            teacher,
            [self.lowest + apart * step for step in range(self.count)],
            self.batch,
            self.classes,
        )
