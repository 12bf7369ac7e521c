"""The student trained on hard labels that the teacher predicts."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.baseline import Baseline
from instil.baselines.bases.student_training import StudentTraining
from instil.core import Card
from instil.data.samples import Samples


class PseudoLabelsBaseline(Baseline):
    """Student trained on its labels, and on the teacher's decisions for unlabelled samples."""

    card = Card(
        title="Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep "
        "Neural Networks",
        venue="ICML Workshop",
        year=2013,
        use="Shows whether soft targets are worth more than the teacher's decisions alone.",
        deviations="The labels come from the teacher instead of the student itself, once, before "
        "the training.",
    )
    display_name: ClassVar[str] = "Pseudo-labels"
    noun: ClassVar[str] = "pseudo-labels"
    result_of: ClassVar[str | None] = "the teacher's hard pseudo-labels"
    color: ClassVar[str | None] = "#3d8bd4"
    needs_teacher: ClassVar[bool] = True
    sees_unlabeled: ClassVar[bool] = True

    @classmethod
    def applies(cls, task: Any) -> bool:
        """Whether the task names this baseline for its kind of label."""
        return "pseudo_labels" in task.baselines.get(task.kind, ())

    def samples(self, training: StudentTraining) -> Samples:
        """All training samples; unlabelled ones have the label that the teacher predicts."""
        samples = training.training_samples()
        outputs = training.teacher_outputs(samples)
        return samples.relabel(training.task.pseudo_labels(outputs, samples.label))
