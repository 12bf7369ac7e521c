"""Base class of schemes that train on generated text and on the text of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from instil.cards import suggestion
from instil.core import Batch, Objective, Objectives, Outputs, Teacher, Update
from instil.generation.options import Sampling
from instil.schemes.bases.writer import GenerativeScheme


class TwoTextsScheme(GenerativeScheme):
    """Base class of schemes that train on generated text and on the text of the data.

    The objectives in ``student_text_objectives`` compare student and teacher on the student's text,
    ``batch["student_text"]``; all others on the text of the data.

    Raises:
        ValueError: for an unknown objective, or if the objectives have a balance.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        student_text_objectives: Sequence[str],
        sampling: Sampling = Sampling(),
    ):
        every = objectives if isinstance(objectives, Objectives) else Objectives(objectives)
        unknown = [name for name in student_text_objectives if name not in every.weights]
        if unknown:
            raise ValueError(
                f"scheme.student_text_objectives: unknown objective '{unknown[0]}'."
                f"{suggestion(unknown[0], every.weights)}"
            )
        if every.balance is not None:
            raise ValueError(
                f"balance: {type(self).__name__} trains on two texts, whose losses a balance "
                "cannot weigh against each other. Leave balance out"
            )
        super().__init__(
            student,
            teacher,
            select_objectives(every, student_text_objectives),
            sampling,
        )
        self.student_text_objectives = tuple(student_text_objectives)
        self.data_objectives = select_objectives(
            every, [name for name in every.weights if name not in student_text_objectives]
        )
        self.learners["student"] = (*self.learners["student"], "data_objectives")

    @property
    def uses_data_text(self) -> bool:
        return True

    def build(self, batch: Batch) -> None:
        # Before super().build, which restricts the roles of the teacher.
        student, teacher = self.forward_both(batch)
        self.data_objectives.build(student, teacher)
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | self.data_objectives.reads("teacher")

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {
            **self.objectives.counts(batch["student_text"]),
            **self.data_objectives.counts(batch),
        }

    def update_on_student_text(self, batch: Batch) -> tuple[Update, Outputs, Outputs]:
        """Compute the losses on the student's text.

        Args:
            batch: a batch with ``student_text``.

        Returns:
            The update, and the outputs of student and teacher.
        """
        student, teacher = self.forward_both(batch["student_text"])
        return self.objectives(student, teacher, batch["student_text"]), student, teacher

    def add_data_losses(self, update: Update, batch: Batch) -> None:
        """Add the losses on the text of the data.

        Args:
            update: update of the student; its losses are extended in place.
            batch: the batch of this step.
        """
        if self.data_objectives.weights:
            # A label loss on the data does not need a forward pass of the teacher.
            teacher = self.teacher_outputs(batch) if self.data_objectives.reads("teacher") else {}
            data_update: Update = self.data_objectives(self.student(batch), teacher, batch)
            update.losses |= data_update.losses
            update.state_updates |= data_update.state_updates

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.data_objectives.after_step(gathered_rows)


def select_objectives(every: Objectives, names: Iterable[str]) -> Objectives:
    """Select some objectives, with their weights and schedules.

    Args:
        every: all objectives.
        names: names of the objectives to select.

    Returns:
        The selected objectives.
    """
    selected = list(names)
    part = Objectives(
        {name: objective for name, objective in every.named() if name in selected},
        {name: every.weights[name] for name in selected},
    )
    modules = list(part.modules())
    # Schedules were extracted from the options of the whole set. The new container finds none, so
    # it takes over the entries of its modules.
    part.schedules = [
        entry for entry in every.schedules if any(entry[0] is module for module in modules)
    ]
    return part
