"""Base class of baselines."""

from __future__ import annotations

from typing import Any, ClassVar

from instil.baselines.bases.student_training import StudentTraining
from instil.core import Card, Objectives
from instil.data.samples import Samples
from instil.schemes.offline.offline import Offline
from instil.training.fit import FitResult


class Baseline:
    """Base class of trainings of the student that distillation must beat.

    A baseline is one file in ``instil/baselines``, or a class with a ``card`` in a plugin or in a
    module that a recipe imports. Its name is the name of the file, or of the class without
    ``Baseline``. Recipes, results, reports and the command line find it by that name.

    Attributes:
        catalogue_kind: kind in the catalogue.
        card: title and use.
        display_name: name in tables and plots.
        noun: name in the middle of a sentence.
        result_of: end of "distillation does clearly worse than ...".
        color: hexadecimal color in plots; None for one of the report's own.
        needs_teacher: whether it reads outputs of the teacher, whose classes must be the
            student's.
        trains: whether the student is trained. Others need neither labels nor samples.
        sees_unlabeled: whether it learns from samples without a visible label, too.
        is_data_free: whether it needs no training data. Data-free baselines are for recipes with
            ``data.surrogate``, the others for those without.

    Example:
        >>> from instil.core import Card
        >>> class ShortBaseline(Baseline):
        ...     card = Card("Student alone, with cross entropy")
        ...     display_name = "Short"
        ...     noun = "the short training"
        ...     @classmethod
        ...     def label_objectives(cls, task):
        ...         return ("cross_entropy",)
        >>> ShortBaseline.label_objectives(None)
        ('cross_entropy',)
    """

    catalogue_kind: ClassVar[str] = "baseline"
    card: ClassVar[Card]
    display_name: ClassVar[str]
    noun: ClassVar[str]
    result_of: ClassVar[str | None] = None
    color: ClassVar[str | None] = None
    needs_teacher: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    sees_unlabeled: ClassVar[bool] = False
    is_data_free: ClassVar[bool] = False

    @classmethod
    def phrase(cls) -> str:
        """Words for the baseline in a sentence about its results."""
        return cls.result_of or cls.noun

    @classmethod
    def applies(cls, task: Any) -> bool:
        """Whether the baseline is defined for a task; by default for each."""
        return True

    @classmethod
    def label_objectives(cls, task: Any) -> tuple[str, ...]:
        """Return the names of the label losses; by default those of the task."""
        return tuple(task.label_objectives)

    def objectives(self, training: StudentTraining) -> Objectives:
        """Build the losses of the student, with the options that the recipe gives them."""
        return training.label_objectives(*self.label_objectives(training.task))

    def samples(self, training: StudentTraining) -> Samples:
        """Return the training samples; by default those that the objectives can learn from."""
        return training.labelled_samples(self.objectives(training))

    def train(self, training: StudentTraining) -> FitResult:
        """Train the student of one seed."""
        samples = self.samples(training)
        # The student sets the random state of the seed, from which adapters are drawn.
        scheme = Offline(training.student(), None, self.objectives(training))
        return training.fit(scheme, samples)
