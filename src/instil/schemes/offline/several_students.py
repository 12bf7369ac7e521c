"""Offline distillation of several students at once, with one forward pass of the teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
    as_net,
)


class SeveralStudents(Scheme):
    """Students that learn from the teacher independently of each other.

    The teacher runs once per step. Each student has separate objectives (adapters, memory banks)
    and a separate optimizer. The student is exported. The others are evaluated, too, and a run
    saves their weights in its folder.

    Raises:
        ValueError: without other students, or for a loss with gradients w.r.t. the input.
    """

    card = Card(
        "Distilling the knowledge in a neural network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="offline",
        deviations="Not the method of a paper: plain offline distillation of several students at "
        "once. The weights equal those of separate trainings, except for the random numbers of "
        "dropout.",
        equation=r"\sum_j \mathcal{L}(s_j(x), t(x))",
        use="For one model in several sizes, or to choose a student: the teacher's forward pass, "
        "most of the cost, is computed once for all students.",
        pitfalls="All students and their optimizers are in memory, and they share one schedule and "
        "recipe. Losses with gradients w.r.t. the input need a pass of the teacher for each "
        "student and are refused.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        others: Annotated[
            Sequence[nn.Module],
            Doc("further students of any architecture, with the same keys as the student"),
        ],
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        if not others:
            raise ValueError(
                "scheme.others: several_students needs at least one other student. Expected one "
                "or more networks, got none. Use scheme offline for one student"
            )
        self.others = nn.ModuleList(as_net(other) for other in others)
        self.other_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in others)
        self.learners |= {
            f"other{i}": (f"others.{i}", f"other_objectives.{i}") for i in range(len(others))
        }

    def build(self, batch: Batch) -> None:
        if self.objectives.needs_input_grad:
            name = self.objectives.requires_double_backward()[0]
            raise ValueError(
                f"{name} takes gradients w.r.t. the input, which need a pass of the teacher for "
                "each student. Expected losses without them. Remove it, or train the students "
                "separately"
            )
        teacher = self.teacher_outputs(batch)
        for _, net, objectives in self._students():
            objectives.build(net(batch), teacher)
        if self.teacher is not None:
            self.teacher.select_roles(self.teacher_roles(), batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher: Outputs = self.teacher_outputs(batch)
        for learner, net, objectives in self._students():
            update = objectives(net(batch), teacher, batch, learner)
            # All students have objectives of the same names, so their rows need different keys.
            update.state_updates = {
                f"{learner}/{key}": rows for key, rows in update.state_updates.items()
            }
            yield update
            # Release the graph of this student before the forward pass of the next one.
            del update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        for learner, _, objectives in self._students():
            prefix = f"{learner}/"
            rows = {
                key.removeprefix(prefix): value
                for key, value in gathered_rows.items()
                if key.startswith(prefix)
            }
            objectives.after_step(rows)

    def other_students(self) -> dict[str, Net]:
        """Return the other students by the name of their learner."""
        return {learner: net for learner, net, _ in self._students() if learner != "student"}

    def _students(self) -> Iterator[tuple[str, Net, Objectives]]:
        """Learner, network and objectives of each student."""
        nets = self.student, *self.others
        all_objectives = self.objectives, *self.other_objectives
        for learner, net, objectives in zip(self.learners, nets, all_objectives, strict=True):
            assert isinstance(net, Net)
            assert isinstance(objectives, Objectives)
            yield learner, net, objectives
