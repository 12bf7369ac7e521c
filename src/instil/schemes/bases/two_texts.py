"""What schemes share that learn from two texts at once: one that is written, and the given one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

from instil.core import Batch, NonNegative, Objective, Objectives, Outputs, Teacher, Update, closest
from instil.schemes.bases.writer import Share, Token, Tokens, Writer


class TwoTexts(Writer):
    """The objectives named in ``own`` compare student and teacher on the student's text, ``batch["own"]``, all others on the given one."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        own: Sequence[str],
        end: Token | None = None,
        prompt: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        every = objectives if isinstance(objectives, Objectives) else Objectives(objectives)
        if unknown := [name for name in own if name not in every.weights]:
            raise ValueError(
                f"own: there is no objective '{unknown[0]}'; {closest(unknown[0], every.weights)}"
            )
        if every.balance is not None:
            raise ValueError(
                f"{type(self).__name__} learns from two texts, whose losses no balance weighs; leave balance out"
            )
        super().__init__(
            student,
            teacher,
            part_of(every, own),
            end,
            prompt,
            max_new_tokens,
            temperature,
            top_p,
            vocabulary,
        )
        self.own = tuple(own)
        self.given = part_of(every, [name for name in every.weights if name not in own])
        self.learners["student"] = (*self.learners["student"], "given")

    def build(self, batch: Batch) -> None:
        student, teacher = self.forward_both(
            batch
        )  # asked first: not all of it is wanted afterwards
        self.given.build(student, teacher)
        super().build(batch)

    def wanted(self) -> set[str]:
        return super().wanted() | self.given.reads("teacher")

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**self.objectives.counts(batch["own"]), **self.given.counts(batch)}

    def on_own(self, batch: Batch) -> tuple[Update, Outputs, Outputs]:
        """The update on the written text, and what student and teacher say of it."""
        student, teacher = self.forward_both(batch["own"])
        return self.objectives(student, teacher, batch["own"]), student, teacher

    def add_given(self, update: Update, batch: Batch) -> None:
        """Add the losses on the given text."""
        if self.given.weights:
            teacher = self.teacher_outputs(batch) if self.given.reads("teacher") else {}
            other: Update = self.given(self.student(batch), teacher, batch)
            update.losses |= other.losses
            update.state_updates |= other.state_updates

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.given.after_step(gathered_rows)


def part_of(every: Objectives, names: Iterable[str]) -> Objectives:
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
