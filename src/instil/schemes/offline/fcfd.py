"""Function-consistent features: the student's stages are judged by what the rest of the teacher makes of them, and the other way round."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    replace_invalid,
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.stage_pairs import StagePairs, resolve_stage_pairs, stage_paths
from instil.teachers.frozen import Frozen


def bridge(source: Tensor, target: Tensor) -> nn.Sequential:
    """A 3x3 convolution, or a linear map, and where the target is nowhere negative a leaky ReLU: the rest of a net expects what it usually gets."""
    is_negative = bool((target < 0).any())  # False for the NaN of an invalid sample
    end = nn.Identity() if is_negative else nn.LeakyReLU(0.1)
    return nn.Sequential(StageAdapter(source, target, kernel=3), end)


class FCFD(Scheme):
    """Two losses beside the objectives: ``appearance``, of bridged student stages and the teacher's, and ``function``, of what mixed nets answer,
    some stages of one net, a bridge, the rest of the other (Liu et al. 2023). Defaults as for CIFAR-100, with the objectives cross_entropy and kd.

    ``appearance_weight``: of the squared differences, summed over the stages (0.02 for ResNet18 <- ResNet34 on ImageNet).
    ``function_weight``: of the KL of the mixed nets' answers to the teacher's, summed over the mixed nets of a step.
    ``temperature``: of that KL, with its square as a factor (1 on ImageNet).
    ``paths``: how many mixed nets a step; which ones is drawn anew in every step.
    ``direction``: both mixes either net's first stages with the other's last, to_teacher and to_student only one way.
    ``stage_pairs``: [[student stage, teacher stage], ...] of ``features``, shallow to deep; auto takes all where both nets have as many.
    """

    card = Card(
        "Function-consistent feature distillation",
        "https://openreview.net/forum?id=pgHNOcxEdRI",
        "ICLR",
        2023,
        source="offline",
        equation=r"\lambda \sum_i \Vert b_i(f^s_i) - f^t_i \Vert^2 + \sum_{m} T^2 \mathrm{KL}(p^t_T \Vert p^m_T), \quad "
        r"p^m: \text{the first stages of one net, } b_i \text{, the last stages of the other}",
        deviations="bridges resize and have no BatchNorm, which would couple the samples; a mixed net normalises by the batch's own statistics, as "
        "published, and leaves the student's running ones alone, where the code keeps a second set",
        use="Networks of one family, stage by stage, and time for one more forward pass a mixed net.",
        pitfalls="Each mixed net costs a forward and a backward pass. Stages must be modules whose output alone the rest of the net reads: no side "
        "inputs, no skip over a stage.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        appearance_weight: NonNegative = 5.0,
        function_weight: NonNegative = 1.0,
        temperature: Positive = 4.0,
        paths: Annotated[int, Ge(1)] = 2,
        direction: Literal["both", "to_teacher", "to_student"] = "both",
        stage_pairs: StagePairs = "auto",
    ):
        super().__init__(student, teacher, objectives)
        self.appearance_weight, self.function_weight, self.temperature = (
            appearance_weight,
            function_weight,
            temperature,
        )
        self.paths, self.direction, self.stage_pairs = paths, direction, stage_pairs
        self.matched: list[tuple[int, int]] = []
        self.at: dict[str, list[str]] = {}  # of each net the modules whose outputs are its stages
        self.to_teacher, self.to_student = nn.ModuleList(), nn.ModuleList()
        self.learners["student"] += ("to_teacher", "to_student")

    def build(self, batch: Batch) -> None:
        if not isinstance(self.teacher, Frozen):
            raise ValueError(
                "function-consistent features run through the teacher's last stages: the teacher must be one net, at hand"
            )
        mine, theirs = (
            _stages(self.student(batch), "student"),
            _stages(self.teacher_outputs(batch), "teacher"),
        )
        self.matched = resolve_stage_pairs(self.stage_pairs, len(mine), len(theirs))
        if len(self.matched) < 2:
            raise ValueError(
                "scheme.stage_pairs: there must be two or more; the mixed nets change over after any but the last"
            )
        self.at = {
            "student": stage_paths(self.student, "student"),
            "teacher": stage_paths(self.teacher.net, "teacher"),
        }
        self.to_teacher.extend(bridge(mine[i], theirs[j]) for i, j in self.matched)
        if self.direction != "to_teacher":
            self.to_student.extend(bridge(theirs[j], mine[i]) for i, j in self.matched[:-1])
        super().build(batch)
        self.teacher.select_roles(self.objectives.reads("teacher") | {"features", "logits"}, batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        number = item_weights(batch).sum()
        return {**super().counts(batch), "appearance": number, "function": number}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update with the losses of appearance and function."""
        teacher, student = self.teacher_outputs(batch), self.student(batch)
        update: Update = self.objectives(student, teacher, batch)
        mine, theirs, weight = (
            tuple(replace_invalid(stage, batch) for stage in _stages(student, "student")),
            tuple(replace_invalid(stage, batch) for stage in _stages(teacher, "teacher")),
            item_weights(batch),
        )
        teacher_logits = replace_invalid(to_float32(teacher["logits"]), batch)
        bridged = [
            to_float32(made(mine[i]))
            for made, (i, _) in zip(self.to_teacher, self.matched, strict=True)
        ]
        apart = appearance(bridged, [to_float32(theirs[j]) for _, j in self.matched])
        answers = [
            replace_invalid(self._answer(batch, *path, bridged, theirs), batch)
            for path in self._drawn(batch)
        ]
        update.losses["appearance"] = self.appearance_weight * mean(apart, weight)
        update.losses["function"] = self.function_weight * mean(
            self._function(answers, teacher_logits), weight
        )
        return update

    def _drawn(self, batch: Batch) -> list[tuple[str, int]]:
        """The mixed nets of this step, alike on all ranks: into which net they change over, and after which pair."""
        ways = ["to_teacher", "to_student"] if self.direction == "both" else [self.direction]
        every = [(way, number) for way in ways for number in range(len(self.matched) - 1)]
        return random.Random(f"{int(batch.get('seed', 0))}/{int(batch.get('step', 0))}").sample(
            every, min(self.paths, len(every))
        )

    def _answer(
        self, batch: Batch, way: str, number: int, bridged: list[Tensor], theirs: tuple[Tensor, ...]
    ) -> Tensor:
        """The logits of a mixed net."""
        i, j = self.matched[number]
        assert isinstance(self.teacher, Frozen)
        none: frozenset[str] = frozenset()
        if way == "to_teacher":
            logits: Tensor = self.teacher.net(
                batch, roles=none, replace={self.at["teacher"][j]: bridged[number]}
            )["logits"]
        else:
            with kept_statistics(self.student):
                logits = self.student(
                    batch,
                    roles=none,
                    replace={self.at["student"][i]: self.to_student[number](theirs[j])},
                )["logits"]
        return to_float32(logits)

    def _function(self, answers: list[Tensor], teacher: Tensor) -> Tensor:
        target = (teacher.detach() / self.temperature).log_softmax(-1)
        apart = [
            F.kl_div(
                (logits / self.temperature).log_softmax(-1),
                target,
                reduction="none",
                log_target=True,
            ).sum(-1)
            for logits in answers
        ]
        return torch.stack(apart).sum(0) * self.temperature**2


def appearance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean squared differences of stages (N, ...), summed, and that of the deepest maps' averages after a ReLU: (N,)."""
    terms = [
        (to_float32(mine) - theirs).square().flatten(1).mean(1)
        for mine, theirs in zip(student, teacher, strict=True)
    ]
    if student[-1].ndim == 4:
        mine, theirs = (
            global_average_pool(to_float32(stage).relu()) for stage in (student[-1], teacher[-1])
        )
        terms.append((mine - theirs).square().mean(1))
    return torch.stack(terms).sum(0)


@contextlib.contextmanager
def kept_statistics(net: nn.Module) -> Iterator[None]:
    """BatchNorms in training normalise by the batch as always, and their running statistics stay as they are."""
    norms = [
        (part, part.momentum)
        for part in net.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    for part, _ in norms:
        part.momentum = 0.0
    try:
        yield
    finally:
        for part, momentum in norms:
            part.momentum = momentum


def _stages(outputs: Outputs, side: str) -> tuple[Tensor, ...]:
    if not isinstance(outputs.get("features"), tuple):
        raise ValueError(
            f"function-consistent features need several stages as 'features' of the {side}, which gives {', '.join(outputs)}"
        )
    stages: tuple[Tensor, ...] = outputs["features"]
    return stages
