"""Base class of baselines that learn from the teacher's outputs for surrogate images."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.baseline import Baseline
from instil.baselines.bases.student_training import StudentTraining
from instil.core import Objectives
from instil.data.samples import Samples
from instil.data.surrogate_images import ImageSource, SyntheticImages
from instil.schemes.offline.offline import Offline
from instil.training.fit import FitResult


class SurrogateBaseline(Baseline):
    """Base class of baselines that use the recipe's objectives on surrogate images.

    Attributes:
        image_source: class of the function that computes the images.
    """

    image_source: ClassVar[type[ImageSource]]
    needs_teacher: ClassVar[bool] = True
    sees_unlabeled: ClassVar[bool] = True
    is_data_free: ClassVar[bool] = True

    @classmethod
    def label_objectives(cls, task: Any) -> tuple[str, ...]:
        """Return no label losses: the images have no labels."""
        return ()

    def objectives(self, training: StudentTraining) -> Objectives:
        """Build the objectives of the recipe."""
        return training.objectives()

    def samples(self, training: StudentTraining) -> Samples:
        """Return unlabelled images; their number is that of the training samples."""
        splits = training.splits
        return SyntheticImages(splits.validation, len(splits.train), self.image_source())

    def train(self, training: StudentTraining) -> FitResult:
        """Train the student of one seed with the teacher."""
        objectives = self.objectives(training)
        student = training.student()
        samples = self.samples(training)
        return training.fit(Offline(student, training.teacher(), objectives), samples)
