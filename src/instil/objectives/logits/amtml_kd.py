"""Adaptive teachers: how much each of several says about a sample is learned, from what the student sees in it; hints come from all of them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Outputs, Positive, full
from instil.functional.directions import angles, unit
from instil.functional.divergences import kl_from, softened
from instil.functional.ensembles import members, require_several, side_by_side
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, comparable
from instil.functional.logits import reduced
from instil.functional.pairs import match, plan, stages
from instil.modules.adapters import adapter, like


def amtml_kd_weights(pooled: Tensor, factors: Tensor, vector: Tensor) -> Tensor:
    """Log of the softmax over K teachers of v · (theta * beta): beta (N, D), theta (K, D) and v (D,) give (K, N) (Liu et al. 2020)."""
    return (factors * vector @ pooled.mT).log_softmax(0)


def amtml_kd_target(teachers: Tensor, log_weights: Tensor, temperature: float = 5.0) -> Tensor:
    """The integrated soft target: log of the weighted mean of the teachers' softmaxes; (K, N, C) and log weights (K, N) give (N, C)."""
    shares = zip(log_weights.exp().unsqueeze(-1), full(teachers), strict=True)
    first, *others = (share * (logits / temperature).softmax(-1) for share, logits in shares)
    mixed: Tensor = sum(others, first)
    log_mixed = mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()
    return log_mixed.masked_fill(mixed == 0, -torch.inf)  # a class that no teacher finds possible


def amtml_kd_loss(
    student: Tensor,
    teachers: Tensor,
    log_weights: Tensor,
    temperature: float = 5.0,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(integrated soft target || student) (Liu et al. 2020); it has a gradient by the weights too.

    Student logits (N, C), teacher logits (K, N, C), log weights (K, N) give (N,) for reduction ``none``. Raises ValueError where shapes do not fit.
    """
    require_several(student, teachers)
    values = kl_from(amtml_kd_target(teachers, log_weights, temperature), student, temperature)
    return reduced(values * temperature**2, reduction)


def amtml_kd_angle_loss(student: Tensor, target: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles that any three samples form in probabilities (N, C), mean over all N * N * N; a scalar."""
    student, target = comparable(student, target.detach(), "amtml_kd_angle_loss")
    return F.smooth_l1_loss(angles(student), angles(target), reduction="sum") / max(
        1, len(student) ** 3
    )


def amtml_kd_hint_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared difference of two stages (N, C, H, W), the teacher's at length 1 over the channels of each position."""
    student, teacher = comparable(student, teacher, "amtml_kd_hint_loss")
    return reduced(squared_error(student, unit(teacher, 1)), reduction)


class AMTMLKD(Objective):
    """Logits near the mean of an ensemble's members under learned weights, each stage near that of its member, and angles as in the mean.

    ``temperature``: divides all logits.
    ``angle``: weight of the angles between the samples of a batch; 0 leaves them out, and the samples do not depend on each other.
    ``hint``: weight of the stages.
    ``decay``: of the squared length of what the weights are learned by, which is in the loss also where student and teachers agree.

    The paired stages are cut into one group a member, shallow to deep. ``plan`` says in words, after ``build``, who guides which stage.
    """

    card = Card(
        "Adaptive multi-teacher multi-level knowledge distillation",
        "https://arxiv.org/abs/2103.04062",
        "Neurocomputing",
        2020,
        source="logits",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        zero_at_match=False,
        deviations="The weights are learned beside the student to the end, in the code in epochs of their own; KL is summed over the classes, in the "
        "code averaged; angles are between probabilities of both sides, in the code the student's are logarithms, with distances beside them; each "
        "member guides the stages of its group (the paper's multi-group hints), in the released code all guide one.",
        equation=r"T^2 \mathrm{KL}\Big( \sum_k w_k p^{t_k}_T \Big\Vert p^s_T \Big) + \lambda_a \mathcal{L}_{angle} + \lambda_h \sum_k "
        r"\sum_{l \in G_k} \frac{1}{CHW} \lVert r_{kl}(\bar f^s_l) - \bar f^{t_k}_l \rVert_2^2, \quad w_k = "
        r"\mathrm{softmax}_k \, v^\top (\theta_k \odot \beta)",
        use="Several teachers that know unlike things, without labels: the weights look at each sample. It costs their forward passes, a 1x1 "
        "convolution a stage and one vector a teacher.",
        pitfalls="The released code weighs the labels' cross-entropy 0.3, the KL 1.4 over the number of classes, angles, distances and hints 1. "
        "The loss falls also when the weights move to the teacher that the student agrees with already: compare with the plain ensemble. "
        "Angles need memory for N x N x N numbers and couple the samples. The order of the teachers says who guides which stage: put the one whose "
        "shallow stages are best first.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("members", "features"), ("members", "logits")),
    }
    samples = True

    def __init__(
        self,
        temperature: Positive = 5.0,
        angle: NonNegative = 1.0,
        hint: NonNegative = 1.0,
        decay: NonNegative = 0.1,
    ):
        super().__init__()
        self.temperature, self.angle, self.hint, self.decay = temperature, angle, hint, decay
        self.relates = bool(angle)  # also a schedule that begins at zero
        self.groups: list[list[tuple[int, int]]] = []  # of each member: student stage, its stage
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()

    @property
    def couples(self) -> bool:
        return self.relates

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make factors and adapters. Raises ValueError for a member without features."""
        mine, several = stages(student), members(teacher)
        self.groups, self.plan, self.adapters = [], [], nn.ModuleList()
        for number, member in enumerate(several):
            if "features" not in member:
                raise ValueError(
                    f"teacher {number} gives {', '.join(member)}, and no features; name the module that gives them in its taps"
                )
            theirs = stages(member)
            self.groups.append(pairs_of_member(match(mine, theirs), number, len(several)))
            made = [adapter(mine[i], theirs[j]) for i, j in self.groups[-1]]
            self.adapters.append(nn.ModuleList(made))
            self.plan += [
                f"teacher {number}: {plan((i, j), mine[i], theirs[j], str(one))}"
                for (i, j), one in zip(self.groups[-1], made, strict=True)
            ]
        width = as_map(mine[-1]).shape[1]
        device, dtype = mine[-1].device, full(mine[-1]).dtype
        self.factors = nn.Parameter(
            torch.randn(len(several), width, device=device, dtype=dtype) / width**0.5
        )
        self.vector = nn.Parameter(torch.randn(width, device=device, dtype=dtype) / width**0.5)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        teachers = side_by_side(student["logits"], members(teacher))
        log_weights = self.log_weights(student)
        loss = amtml_kd_loss(student["logits"], teachers, log_weights, self.temperature, "none")
        loss = loss + self.decay * (self.factors.square().sum() + self.vector.square().sum())
        if self.hint:
            loss = loss + self.hint * self.hints(student, teacher)
        if not self.couples:
            return loss
        mine, theirs = (
            softened(student["logits"], self.temperature).exp(),
            amtml_kd_target(teachers, log_weights, self.temperature).exp(),
        )
        return loss.mean() + self.angle * amtml_kd_angle_loss(mine, theirs)

    def log_weights(self, student: Outputs) -> Tensor:
        """Log of how much each member counts for each sample, (K, N), by the largest values of the student's deepest stage."""
        pooled = full(as_map(stages(student)[-1])).amax((2, 3)).to(self.factors.dtype)
        return amtml_kd_weights(pooled, self.factors, self.vector)

    def hints(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Sum of the hints of all members, (N,)."""
        terms = []
        for pairs, adapters, member in zip(
            self.groups, self.adapters, members(teacher), strict=True
        ):
            assert isinstance(adapters, nn.ModuleList)
            for (i, j), made in zip(pairs, adapters, strict=True):
                mine = made(like(made, unit(as_map(stages(student)[i]), 1)))
                terms.append(amtml_kd_hint_loss(mine, as_map(stages(member)[j]), "none"))
        return torch.stack(terms).sum(0)


def pairs_of_member(pairs: list[tuple[int, int]], number: int, count: int) -> list[tuple[int, int]]:
    """The part of the paired stages that belongs to one of ``count`` members: cut in order, at least one each."""
    start = number * len(pairs) // count
    return pairs[start : max(start + 1, (number + 1) * len(pairs) // count)]
