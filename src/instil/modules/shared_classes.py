"""Selection of the classes that teacher and student share, for losses that compare logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.items import UNLABELLED, Batch, Outputs
from instil.roles import RoleConsumer


class SharedClasses(nn.Module):
    """Selects logits of the classes that teacher and student share, in the order of the student.

    It is the ``selection`` of ``Objectives``.

    Args:
        student_classes: class names of the student.
        teacher_classes: class names of the teacher.

    Raises:
        ValueError: if they share fewer than two classes.

    Example:
        >>> shared = SharedClasses(("a", "b", "c"), ("c", "a"))
        >>> shared.student_columns.tolist(), shared.teacher_columns.tolist()
        ([0, 2], [1, 0])
    """

    student_columns: Tensor
    teacher_columns: Tensor
    new_labels: Tensor

    def __init__(self, student_classes: Sequence[str], teacher_classes: Sequence[str]):
        super().__init__()
        names = [name for name in student_classes if name in teacher_classes]
        if len(names) < 2:
            raise ValueError(
                f"teacher and student share {len(names)} classes. Expected two or more with the "
                "same names"
            )
        student_columns = torch.tensor([list(student_classes).index(name) for name in names])
        teacher_columns = torch.tensor([list(teacher_classes).index(name) for name in names])
        # The last entry is for items without a label, which have the index -1 of the table.
        new_labels = torch.full((len(student_classes) + 1,), UNLABELLED)
        new_labels[student_columns] = torch.arange(len(names))
        # Not in the state: a checkpoint holds what is trained.
        self.register_buffer("student_columns", student_columns, persistent=False)
        self.register_buffer("teacher_columns", teacher_columns, persistent=False)
        self.register_buffer("new_labels", new_labels, persistent=False)

    def forward(
        self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Outputs, Outputs, Batch]:
        """Return the outputs and the batch that a loss reads; unchanged if it compares no logits.

        Args:
            objective: loss that reads them.
            student: student outputs; empty if only the batch is needed.
            teacher: teacher outputs; empty if only the batch is needed.
            batch: batch of the step. Labels of other classes become -100.
        """
        if not compares_logits(objective):
            return student, teacher, batch
        if "label" in batch:
            batch = batch | {"label": self.new_labels[batch["label"].clamp_min(-1)]}
        return (
            _columns(student, self.student_columns),
            _columns(teacher, self.teacher_columns),
            batch,
        )


def _columns(outputs: Outputs, columns: Tensor) -> Outputs:
    """Outputs with these columns of the logits."""
    if "logits" not in outputs:
        return outputs
    return outputs | {"logits": outputs["logits"].index_select(-1, columns)}


def compares_logits(objective: Objective) -> bool:
    """Whether a loss or its sample weight reads the logits of teacher and student.

    Args:
        objective: the loss.
    """
    consumers: list[RoleConsumer] = [objective]
    if objective.sample_weight is not None:
        consumers.append(objective.sample_weight)
    return any(
        all("logits" in consumer.reads.get(side, ()) for side in ("student", "teacher"))
        for consumer in consumers
    )
