"""The student without a teacher."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.baseline import Baseline
from instil.core import Card


class AloneBaseline(Baseline):
    """Student trained on its labels, without a teacher."""

    card = Card(
        title="Student alone",
        use="The reference of every gain: the same student, start, steps and labels.",
    )
    display_name: ClassVar[str] = "Student alone"
    noun: ClassVar[str] = "the student alone"
    color: ClassVar[str | None] = "#d97a2b"

    @classmethod
    def applies(cls, task: Any) -> bool:
        """Whether the task names this baseline for its kind of label."""
        return "alone" in task.baselines.get(task.kind, ())
