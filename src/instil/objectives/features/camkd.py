"""Confidence-aware teachers: of several, those that are right about a sample say most about it, in logits and in the deepest stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Outputs,
    Positive,
    drop_unlabelled_gradient,
    to_float32,
)
from instil.functional.ensembles import (
    inverse_share_weights,
    members,
    require_teacher_stack,
    stack_teacher_logits,
    teacher_divergences,
)
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction, require_class_target
from instil.functional.pairs import describe_pair, feature_levels
from instil.modules.adapters import Adapter


def camkd_weights(logits: Tensor, target: Tensor) -> Tensor:
    """w = (1 - softmax over the teachers of the cross-entropy with the label) / (K - 1): logits (K, N, C) give (K, N) (Zhang et al. 2022, eq. 2).

    They sum to 1 over the teachers, and have a gradient by the logits.
    """
    require_class_target(logits[0], target)
    index = target.clamp_min(0).expand(logits.shape[:-1]).unsqueeze(-1)
    return inverse_share_weights(
        (-to_float32(logits).log_softmax(-1).gather(-1, index).squeeze(-1)).softmax(0)
    )


def camkd_logit_loss(
    student: Tensor,
    teachers: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Sum over K teachers of w T² KL(teacher || student), weighted by the teachers' own logits (Zhang et al. 2022, eq. 3).

    Student logits (N, C), teacher logits (K, N, C), target (N,) give (N,) for reduction ``none``; -100 gives 0.
    Raises ValueError where shapes do not fit.
    """
    require_teacher_stack(student, teachers)
    require_class_target(student, target)
    (student,) = drop_unlabelled_gradient(target, student)
    (teachers,) = drop_unlabelled_gradient(target.expand(teachers.shape[:-1]), teachers)
    values = teacher_divergences(student, teachers, temperature)
    return apply_reduction((camkd_weights(teachers, target) * values).sum(0), reduction, target)


def camkd_feature_loss(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    through: Tensor,
    target: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Sum over K teachers of w times the mean squared difference of the stages (Zhang et al. 2022, eq. 4 and 5).

    The weights are of ``through`` (K, N, C): what each teacher's classifier says of the student's stage. One pair of stages of one shape for
    each teacher, target (N,), -100 gives 0. Raises ValueError where shapes do not fit.
    """
    pairs = [
        require_same_shape(mine, theirs, "camkd_feature_loss")
        for mine, theirs in zip(students, teachers, strict=True)
    ]
    require_class_target(through[0], target)
    (through,) = drop_unlabelled_gradient(target.expand(through.shape[:-1]), through)
    pairs = [(drop_unlabelled_gradient(target, mine)[0], theirs) for mine, theirs in pairs]
    values = torch.stack([squared_error(mine, theirs) for mine, theirs in pairs])
    return apply_reduction((camkd_weights(through, target) * values).sum(0), reduction, target)


class CAMKD(LabelObjective):
    """Logits and deepest stage near those of each member of an ensemble, weighted sample by sample by how right the member is.

    ``temperature``: divides the logits of the divergences; the weights are at temperature 1.
    ``stage``: weight of the stages beside the logits.

    ``describe_pair`` says in words, after ``build``, how each teacher's stage is met.
    """

    card = Card(
        "Confidence-aware multi-teacher knowledge distillation",
        "https://arxiv.org/abs/2201.00007",
        "ICASSP",
        2022,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        deviations="Both terms are sums over the teachers, weighted by weights that sum to 1, as in the paper; the code divides both by K once more. "
        "As in the code, the squared difference is a mean over the elements, and the stages' weights have a gradient. The adapter is a 1x1 "
        "convolution, the code's three with BatchNorm; stages count from the first step on, the code's from the second epoch.",
        equation=r"\sum_k w_k T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T) + \beta \sum_k v_k \frac{1}{CHW} \lVert r_k(f^s) - f^{t_k} \rVert_2^2, \quad "
        r"w_k = \frac{1}{K - 1} \Big( 1 - \frac{e^{L_k}}{\sum_j e^{L_j}} \Big), \quad L_k = -\log p^{t_k}_y",
        use="Several teachers with labels, some of whom are wrong where others are right: list them under teacher. It costs their forward passes and "
        "a 1x1 convolution each; with one teacher it is kd and a hint.",
        pitfalls="Samples without a label teach nothing: add ebkd or kd for them. Teachers that fit the training set are all right on it, and the "
        "weights are equal. Each teacher must have one linear classifier that reads its averaged deepest stage. train.shard is refused.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("members", "features"), ("members", "logits"), ("members", "head")),
    }
    per_sample = True
    supports_sharding: ClassVar = False

    def __init__(self, temperature: Positive = 4.0, stage: NonNegative = 50.0):
        super().__init__()
        self.temperature, self.stage = temperature, stage
        self.adapters = nn.ModuleList()
        self.plan: list[str] = []

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One adapter a teacher. Raises ValueError for a teacher whose classifier does not read its deepest stage."""
        mine = feature_levels(student)
        self.adapters, self.plan = nn.ModuleList(), []
        for number, member in enumerate(members(teacher)):
            if missing := [role for role in ("features", "logits", "head") if role not in member]:
                raise ValueError(
                    f"teacher {number} gives {', '.join(member)}, and no {missing[0]}; name the module that gives it in its taps"
                )
            theirs, (weight, _) = feature_levels(member), member["head"]
            if as_map(theirs[-1]).shape[1] != weight.shape[1]:
                shapes = f"its head reads {weight.shape[1]} numbers, its deepest stage has {as_map(theirs[-1]).shape[1]} channels"
                raise ValueError(
                    f"teacher {number} has no classifier of its deepest stage: {shapes}"
                )
            made = Adapter(mine[-1], theirs[-1])
            self.adapters.append(made)
            self.plan.append(
                describe_pair((len(mine) - 1, len(theirs) - 1), mine[-1], theirs[-1], str(made))
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        several, target = members(teacher), batch["label"]
        logits = stack_teacher_logits(student["logits"], several)
        loss = camkd_logit_loss(student["logits"], logits, target, self.temperature, "none")
        if not self.stage:
            return loss
        mine = [to_float32(made(feature_levels(student)[-1])) for made in self.adapters]
        theirs = [as_map(feature_levels(member)[-1]) for member in several]
        spoken = [
            F.linear(stage.mean((2, 3)), *map(to_float32, member["head"]))
            for stage, member in zip(mine, several, strict=True)
        ]
        return loss + self.stage * camkd_feature_loss(
            mine, theirs, torch.stack(spoken), target, "none"
        )
