"""The student without a teacher, with smoothed labels."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.baseline import Baseline
from instil.core import Card


class LabelSmoothingBaseline(Baseline):
    """Student trained on smoothed labels, without a teacher."""

    card = Card(
        title="Rethinking the Inception Architecture for Computer Vision",
        paper="https://arxiv.org/abs/1512.00567",
        venue="CVPR",
        year=2016,
        use="Shows whether the gain is more than regularisation: soft targets without a teacher.",
    )
    display_name: ClassVar[str] = "Label smoothing"
    noun: ClassVar[str] = "label smoothing"
    color: ClassVar[str | None] = "#b065b3"

    @classmethod
    def applies(cls, task: Any) -> bool:
        """Whether the task names this baseline for its kind of label."""
        return "label_smoothing" in task.baselines.get(task.kind, ())

    @classmethod
    def label_objectives(cls, task: Any) -> tuple[str, ...]:
        """Return the cross entropy with smoothed labels."""
        return ("label_smoothing",)
