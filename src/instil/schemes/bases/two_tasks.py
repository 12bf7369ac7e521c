"""Base class of schemes whose texts have a second task with rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn

from instil.core import Batch, Objective, Objectives, Scheme, Teacher, Update
from instil.items.prefixed_rows import prefixed_rows
from instil.objectives.labels.cross_entropy import CrossEntropy


class TwoTasks(Scheme):
    """Training on the rows of a batch and on further rows under prefixed keys.

    The objectives apply to the rows without a prefix. The further rows have the cross-entropy of
    their answers.

    Args:
        student: the student.
        teacher: teacher of the first task, or None.
        objectives: losses of the first task.
        weight: weight of the loss of the second task.

    Attributes:
        scheme_name: name of the scheme, for messages.
        loss_name: name of the loss of the second task, whose batch keys begin with it and ``_``.
        rationale_use: value of ``data.rationale`` with such rows.
    """

    scheme_name: ClassVar[str]
    loss_name: ClassVar[str]
    rationale_use: ClassVar[str]

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: float,
    ):
        super().__init__(student, teacher, objectives)
        if self.objectives.balance is not None:
            raise ValueError(
                f"balance: {self.scheme_name} trains on two tasks, whose losses a balance cannot "
                "weigh against each other. Leave balance out"
            )
        self.second_objective = Objectives(
            {self.loss_name: CrossEntropy()}, {self.loss_name: weight}
        )
        self.learners = {"student": ("student", "objectives", "second_objective")}

    @property
    def prefix(self) -> str:
        """Beginning of the batch keys of the second task."""
        return f"{self.loss_name}_"

    def build(self, batch: Batch) -> None:
        if f"{self.prefix}input_ids" not in batch:
            raise ValueError(
                f"{self.scheme_name} needs rows with rationales. Expected "
                f"'{self.prefix}input_ids' in the batch, got {', '.join(batch)}. Set "
                f"data.rationale to {self.rationale_use}"
            )
        super().build(batch)
        self.second_objective.build(self.student(self.second_task(batch)), {})

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | self.second_objective.counts(self.second_task(batch))

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.compute_losses(batch)
        rows = self.second_task(batch)
        further: Update = self.second_objective(self.student(rows), {}, rows)
        update.losses |= further.losses
        yield update

    def second_task(self, batch: Batch) -> Batch:
        """Return the batch with the rows of the second task in place of those of the first."""
        return prefixed_rows(batch, self.prefix)
