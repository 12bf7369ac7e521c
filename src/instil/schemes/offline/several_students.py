"""Students of several sizes, taught beside each other by one answer of the teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

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
    """Each student learns as it would alone with the teacher, which is asked once a step; the students do not see each other.

    ``others``: further students of any architectures, described as the student is.

    Each has objectives (adapters, banks) and an optimizer of its own. The student is exported; the others are scored beside it, and a run keeps
    their weights in its folder.
    """

    card = Card(
        "Distilling the knowledge in a neural network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="offline",
        deviations="No paper's method: plain offline distillation of several students at once, with the same weights as one by one but for what "
        "dropout draws.",
        equation=r"\sum_j \mathcal{L}(s_j(x), t(x))",
        use="The same model in several sizes, or the choice of a student: the teacher's forward pass, most of the cost, is paid once for all.",
        pitfalls="All students are in memory with their optimizers, and one schedule and recipe serves all. Losses that take gradients by the input "
        "need the teacher's pass for each student, and are refused.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        others: Sequence[nn.Module],
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        if not others:
            raise ValueError("several students need at least one other")
        self.others = nn.ModuleList(as_net(other) for other in others)
        self.other_objectives = nn.ModuleList(copy.deepcopy(self.objectives) for _ in others)
        self.learners |= {
            f"other{i}": (f"others.{i}", f"other_objectives.{i}") for i in range(len(others))
        }

    def build(self, batch: Batch) -> None:
        if self.objectives.needs_input_grad:
            inside = self.objectives.requires_double_backward()[0]
            raise ValueError(
                f"{inside} takes gradients by the input, for which each student needs an answer of its own"
            )
        teacher = self.teacher_outputs(batch)
        for _, net, objectives in self._sides():
            objectives.build(net(batch), teacher)
        if self.teacher is not None:
            self.teacher.select_roles(self.objectives.reads("teacher"), batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher: Outputs = self.teacher_outputs(batch)
        for learner, net, objectives in self._sides():
            update = objectives(net(batch), teacher, batch, learner)
            update.state_updates = {
                f"{learner}/{key}": rows for key, rows in update.state_updates.items()
            }
            yield update
            del update  # its graph ends with its step

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        for learner, _, objectives in self._sides():
            objectives.after_step(
                {
                    key.removeprefix(f"{learner}/"): rows
                    for key, rows in gathered_rows.items()
                    if key.startswith(f"{learner}/")
                }
            )

    def other_students(self) -> dict[str, Net]:
        """The other students."""
        return {learner: net for learner, net, _ in self._sides() if learner != "student"}

    def _sides(self) -> Iterator[tuple[str, Net, Objectives]]:
        nets, objectives = (self.student, *self.others), (self.objectives, *self.other_objectives)
        for learner, net, own in zip(self.learners, nets, objectives, strict=True):
            assert isinstance(net, Net)
            assert isinstance(own, Objectives)
            yield learner, net, own
