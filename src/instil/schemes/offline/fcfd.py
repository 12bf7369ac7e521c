"""FCFD: the stages of student and teacher must be interchangeable in mixed networks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

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
    to_float32,
)
from instil.items import replace_invalid
from instil.modules.eval_mode import frozen_statistics
from instil.schemes.bases.mixed_networks import appearance, bridge
from instil.schemes.bases.stage_pairs import StagePairs, resolve_stage_pairs, stage_paths
from instil.teachers.frozen import Frozen

AppearanceWeight = Annotated[
    NonNegative,
    Doc(
        "weight of the squared differences, summed over the stages (0.02 for ResNet-34 to "
        "ResNet-18 on ImageNet)"
    ),
]
FunctionWeight = Annotated[
    NonNegative,
    Doc(
        "weight of the KL divergence of the mixed networks from the teacher, summed over "
        "the mixed networks of a step"
    ),
]
Temperature = Annotated[
    Positive,
    Doc("softmax temperature of the KL divergence, whose square is a factor; 1 on ImageNet"),
]
Direction = Annotated[
    Literal["both", "to_teacher", "to_student"],
    Doc(
        "network with the last stages of a mixed network: the teacher, the student, or "
        "either of them"
    ),
]


class FCFD(Scheme):
    """Distillation of stages by appearance and by function (Liu et al. 2023).

    The loss ``appearance`` compares adapted student stages with the teacher's. The loss
    ``function`` compares the logits of mixed networks with the teacher's. A mixed network consists
    of the first stages of one network, an adapter, and the last stages of the other. The defaults
    are those for CIFAR-100, with the objectives cross_entropy and kd.

    Raises:
        ValueError: for a teacher that is not one local network, fewer than two stage pairs, or
            networks without a tuple of ``features``.
    """

    card = Card(
        "Function-consistent feature distillation",
        "https://openreview.net/forum?id=pgHNOcxEdRI",
        "ICLR",
        2023,
        source="offline",
        equation=r"\lambda \sum_i \Vert b_i(f^s_i) - f^t_i \Vert^2 + "
        r"\sum_{m} T^2 \mathrm{KL}(p^t_T \Vert p^m_T), \quad "
        r"p^m: \text{the first stages of one net, } b_i \text{, the last stages of the other}",
        deviations="Adapters resize and have no BatchNorm, which would make the samples of a batch "
        "depend on each other. A mixed network normalizes by the statistics of the batch, as "
        "published, and does not change the student's running statistics; the authors' code keeps "
        "a second set.",
        use="For networks of one family, stage by stage, if there is time for one more forward "
        "pass per mixed network.",
        pitfalls="Each mixed network costs a forward and a backward pass. Stages must be modules "
        "whose output is the only input of the rest of the network: no side inputs, and no skip "
        "connection over a stage.",
        tags=("teacher_modules",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        appearance_weight: AppearanceWeight = 5.0,
        function_weight: FunctionWeight = 1.0,
        temperature: Temperature = 4.0,
        paths: Annotated[int, Ge(1), Doc("number of mixed networks, drawn in each step")] = 2,
        direction: Direction = "both",
        stage_pairs: Annotated[
            StagePairs,
            Doc(
                "pairs [student stage, teacher stage] of ``features``, shallow to deep; auto: all "
                "stages, for networks with the same number of them"
            ),
        ] = "auto",
    ):
        super().__init__(student, teacher, objectives)
        self.appearance_weight = appearance_weight
        self.function_weight = function_weight
        self.temperature = temperature
        self.paths = paths
        self.direction = direction
        self.stage_pairs = stage_pairs
        self.matched: list[tuple[int, int]] = []
        # Modules whose outputs are the stages, for each side.
        self.stage_modules: dict[str, list[str]] = {}
        self.to_teacher = nn.ModuleList()
        self.to_student = nn.ModuleList()
        self.learners["student"] += ("to_teacher", "to_student")

    def build(self, batch: Batch) -> None:
        if not isinstance(self.teacher, Frozen):
            raise ValueError(
                "teacher: fcfd runs the last stages of the teacher. Expected the teacher to be one "
                f"local network, got {type(self.teacher).__name__}. Use one teacher, not recorded"
            )
        student_stages = _stages(self.student(batch), "student")
        teacher_stages = _stages(self.teacher_outputs(batch), "teacher")
        self.matched = resolve_stage_pairs(
            self.stage_pairs, len(student_stages), len(teacher_stages)
        )
        if len(self.matched) < 2:
            raise ValueError(
                "scheme.stage_pairs: a mixed network changes over after any pair but the last. "
                f"Expected two or more pairs, got {len(self.matched)}. Name more stages in features"
            )
        self.stage_modules = {
            "student": stage_paths(self.student, "student"),
            "teacher": stage_paths(self.teacher.net, "teacher"),
        }
        self.to_teacher.extend(
            bridge(student_stages[i], teacher_stages[j]) for i, j in self.matched
        )
        if self.direction != "to_teacher":
            self.to_student.extend(
                # No change-over after the last pair: no stages of the student would follow it.
                bridge(teacher_stages[j], student_stages[i])
                for i, j in self.matched[:-1]
            )
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"features", "logits"}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        return {**super().counts(batch), "appearance": num_items, "function": num_items}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of the objectives, and those of appearance and function."""
        teacher = self.teacher_outputs(batch)
        student = self.student(batch)
        update: Update = self.objectives(student, teacher, batch)
        student_stages = [replace_invalid(stage, batch) for stage in _stages(student, "student")]
        teacher_stages = [replace_invalid(stage, batch) for stage in _stages(teacher, "teacher")]
        weight = item_weights(batch)
        teacher_logits = replace_invalid(to_float32(teacher["logits"]), batch)
        adapted = [
            to_float32(adapter(student_stages[i]))
            for adapter, (i, _) in zip(self.to_teacher, self.matched, strict=True)
        ]
        targets = [to_float32(teacher_stages[j]) for _, j in self.matched]
        distance = appearance(adapted, targets)
        mixed_logits = [
            replace_invalid(self._mixed_logits(batch, *path, adapted, teacher_stages), batch)
            for path in self._sample_paths(batch)
        ]
        divergence = self._function(mixed_logits, teacher_logits)
        update.losses["appearance"] = self.appearance_weight * mean(distance, weight)
        update.losses["function"] = self.function_weight * mean(divergence, weight)
        return update

    def _sample_paths(self, batch: Batch) -> list[tuple[str, int]]:
        """Direction and last pair before the change-over of the mixed networks of this step."""
        directions = ["to_teacher", "to_student"] if self.direction == "both" else [self.direction]
        paths = list(itertools.product(directions, range(len(self.matched) - 1)))
        # Keyed by seed and step: all ranks draw the same networks.
        generator = random.Random(f"{int(batch.get('seed', 0))}/{int(batch.get('step', 0))}")
        return generator.sample(paths, min(self.paths, len(paths)))

    def _mixed_logits(
        self,
        batch: Batch,
        direction: str,
        pair: int,
        adapted: list[Tensor],
        teacher_stages: list[Tensor],
    ) -> Tensor:
        """Logits of a mixed network."""
        i, j = self.matched[pair]
        assert isinstance(self.teacher, Frozen)
        no_roles: frozenset[str] = frozenset()
        if direction == "to_teacher":
            replace = {self.stage_modules["teacher"][j]: adapted[pair]}
            logits: Tensor = self.teacher.net(batch, roles=no_roles, replace=replace)["logits"]
            return to_float32(logits)
        # A second forward pass on the same samples, which BatchNorm must not count twice.
        with frozen_statistics(self.student):
            replace = {self.stage_modules["student"][i]: self.to_student[pair](teacher_stages[j])}
            logits = self.student(batch, roles=no_roles, replace=replace)["logits"]
        return to_float32(logits)

    def _function(self, mixed_logits: list[Tensor], teacher_logits: Tensor) -> Tensor:
        target = (teacher_logits.detach() / self.temperature).log_softmax(-1)
        total = []
        for logits in mixed_logits:
            log_probs = (logits / self.temperature).log_softmax(-1)
            values = F.kl_div(log_probs, target, reduction="none", log_target=True)
            total.append(values.sum(-1))
        return torch.stack(total).sum(0) * self.temperature**2


def _stages(outputs: Outputs, side: str) -> tuple[Tensor, ...]:
    if not isinstance(outputs.get("features"), tuple):
        raise ValueError(
            f"{side}: fcfd needs several stages. Expected a tuple of 'features' in the outputs, "
            f"got {', '.join(outputs)}. Name the stages in taps"
        )
    stages: tuple[Tensor, ...] = outputs["features"]
    return stages
