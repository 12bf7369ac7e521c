"""What schemes share that learn from two texts at once: one that is written, and the given one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

from instil.core import Batch, NonNegative, Objective, Objectives, Outputs, Teacher, Update, closest
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens


class TwoTextsScheme(GenerativeScheme):
    """Base class of schemes that train on generated text and on the text of the data.

    The objectives in ``student_text_objectives`` compare student and teacher on the student's text,
    ``batch["student_text"]``; all others on the text of the data.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        student_text_objectives: Sequence[str],
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        every = objectives if isinstance(objectives, Objectives) else Objectives(objectives)
        if unknown := [name for name in student_text_objectives if name not in every.weights]:
            raise ValueError(
                f"scheme.student_text_objectives: there is no objective '{unknown[0]}'; {closest(unknown[0], every.weights)}"
            )
        if every.balance is not None:
            raise ValueError(
                f"{type(self).__name__} learns from two texts, whose losses no balance weighs; leave balance out"
            )
        super().__init__(
            student,
            teacher,
            select_objectives(every, student_text_objectives),
            end,
            min_prompt_tokens,
            max_new_tokens,
            temperature,
            top_p,
            vocabulary,
        )
        self.student_text_objectives = tuple(student_text_objectives)
        self.data_objectives = select_objectives(
            every, [name for name in every.weights if name not in student_text_objectives]
        )
        self.learners["student"] = (*self.learners["student"], "data_objectives")

    def build(self, batch: Batch) -> None:
        student, teacher = self.forward_both(
            batch
        )  # asked first: not all of it is wanted afterwards
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
        """The update on the written text, and what student and teacher say of it."""
        student, teacher = self.forward_both(batch["student_text"])
        return self.objectives(student, teacher, batch["student_text"]), student, teacher

    def add_data_losses(self, update: Update, batch: Batch) -> None:
        """Add the losses on the given text."""
        if self.data_objectives.weights:
            teacher = self.teacher_outputs(batch) if self.data_objectives.reads("teacher") else {}
            other: Update = self.data_objectives(self.student(batch), teacher, batch)
            update.losses |= other.losses
            update.state_updates |= other.state_updates

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.data_objectives.after_step(gathered_rows)


def select_objectives(every: Objectives, names: Iterable[str]) -> Objectives:
    """Some of the objectives, with their weights and schedules."""
    chosen: Collection[str] = list(names)
    part = Objectives(
        {name: objective for name, objective in every.named() if name in chosen},
        {name: every.weights[name] for name in chosen},
    )
    modules = list(part.modules())
    part.schedules = [
        entry for entry in every.schedules if any(entry[0] is module for module in modules)
    ]
    return part
