"""Training of a baseline: what a baseline gets from the recipe."""

from __future__ import annotations

import copy
from typing import Any

from instil.core import Net, Objectives, Outputs, Scheme, Teacher
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_objectives
from instil.experiment.training_options import build_training, num_training_steps
from instil.plan.fitting import Fitter
from instil.plan.students import StudentBuilder
from instil.recipe import build_objectives, label_objectives
from instil.training.fit import FitResult


class BaselineTraining:
    """Student, data and budget of one baseline with one seed (see ``StudentTraining``).

    Args:
        name: name of the baseline.
        seed: seed of the training.
        fitter: trains into the run folder.
        students: builds the students.
        teacher: teacher of the recipe; None if it has none that can be scored.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        fitter: Fitter,
        students: StudentBuilder,
        teacher: Teacher | None,
    ) -> None:
        self.name = name
        self.seed = seed
        self._fitter = fitter
        self._students = students
        self._teacher = teacher
        self._stage: Experiment = students.stages[-1]
        self._recipe = fitter.evaluator.experiment.recipe
        self.task: Any = fitter.evaluator.task
        self.splits: Splits = self._stage.splits

    def training_samples(self) -> Samples:
        """Training samples of the student; samples without a visible label are unlabelled."""
        return self._stage.train_data(self.seed)

    def labelled_samples(self, objectives: Objectives) -> Samples:
        """Training samples that the objectives learn from: only labelled ones for label losses."""
        return samples_for_objectives(objectives, self.training_samples())

    def label_objectives(self, *names: str) -> Objectives:
        """Objectives of these types, with the options that the recipe gives them."""
        return label_objectives(self._recipe, *names)

    def objectives(self) -> Objectives:
        """Objectives of the recipe."""
        return build_objectives(self._recipe.objectives)

    def student(self) -> Net:
        """Build the student with the initial weights of this seed."""
        return self._students.exported(self.seed)

    def teacher(self) -> Teacher:
        """Return a copy of the teacher."""
        assert self._teacher is not None
        return copy.deepcopy(self._teacher)

    def teacher_outputs(self, samples: Samples) -> Outputs:
        """Return the teacher's outputs for training samples, in their order."""
        teacher = self._fitter.evaluator.teacher_outputs["train"]
        outputs: Outputs = teacher({"index": samples.index})
        return outputs

    def fit(self, scheme: Scheme, samples: Samples) -> FitResult:
        """Train with the options of the recipe for the number of steps of the distilled student."""
        steps = sum(num_training_steps(stage) for stage in self._students.stages)
        learners = list(scheme.learners)
        training = build_training(self._stage.recipe.train, self.seed, steps, learners)
        return self._fitter.fit(self.name, self.seed, scheme, samples, training, self._stage)
