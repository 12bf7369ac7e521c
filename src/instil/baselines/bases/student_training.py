"""Interface through which a baseline trains the student of a recipe."""

from __future__ import annotations

from typing import Any, Protocol

from instil.core import Net, Objectives, Outputs, Scheme, Teacher
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.training.fit import FitResult


class StudentTraining(Protocol):
    """Student, data and training budget of one seed of a recipe.

    Every baseline has the initial weights, the number of steps and the training options of the
    distilled student.

    Attributes:
        task: task of the student.
        splits: training, validation and test data.
        seed: seed of the training.
    """

    task: Any
    splits: Splits
    seed: int

    def training_samples(self) -> Samples:
        """Training samples of the student; samples without a visible label are unlabelled."""

    def labelled_samples(self, objectives: Objectives) -> Samples:
        """Training samples that the objectives learn from: only labelled ones for label losses."""

    def label_objectives(self, *names: str) -> Objectives:
        """Objectives of these types, with the options that the recipe gives them."""

    def objectives(self) -> Objectives:
        """Objectives of the recipe."""

    def student(self) -> Net:
        """Build the student with the initial weights of this seed."""

    def teacher(self) -> Teacher:
        """Return a copy of the teacher."""

    def teacher_outputs(self, samples: Samples) -> Outputs:
        """Return the task's ``decisions`` of the teacher for training samples, in their order."""

    def fit(self, scheme: Scheme, samples: Samples) -> FitResult:
        """Train with the options of the recipe for the number of steps of the distilled student."""
