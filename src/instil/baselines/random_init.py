"""The student with its initial weights."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.baseline import Baseline
from instil.baselines.bases.student_training import StudentTraining
from instil.core import Card
from instil.training.fit import FitResult


class RandomInitBaseline(Baseline):
    """Student that is not trained, for tasks whose metrics fit a probe to its outputs."""

    card = Card(
        title="Random initialisation",
        use="Shows how much of a probe's accuracy needs no training: random features of small "
        "images separate many classes.",
    )
    display_name: ClassVar[str] = "Random initialisation"
    noun: ClassVar[str] = "the untrained student"
    color: ClassVar[str | None] = "#8a8a8a"
    trains: ClassVar[bool] = False

    @classmethod
    def applies(cls, task: Any) -> bool:
        """Whether the task names this baseline for its kind of label."""
        return "random_init" in task.baselines.get(task.kind, ())

    @classmethod
    def label_objectives(cls, task: Any) -> tuple[str, ...]:
        """Return no label losses: nothing is trained."""
        return ()

    def train(self, training: StudentTraining) -> FitResult:
        """Return the student of one seed as it is built."""
        return FitResult(training.student().eval(), [], 0.0)
