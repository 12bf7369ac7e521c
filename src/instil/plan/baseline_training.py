"""Training of a baseline: what a baseline gets from the recipe."""

from __future__ import annotations

import copy
from typing import Any

from instil import catalogue
from instil.core import Net, Objectives, Outputs, Scheme, Teacher
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.experiment.exemplars import Exemplars
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_objectives
from instil.experiment.training_options import build_training, num_training_steps
from instil.plan.fitting import Fitter
from instil.plan.stage_scores import StageScores
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
        stage_index: stage that is trained. None: one training on the data of the last stage, for
            the number of steps of all stages.
        origin: student of the earlier stage that this stage continues.
        stage: experiment of the stage with its exemplars; None: that of the recipe.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        fitter: Fitter,
        students: StudentBuilder,
        teacher: Teacher | None,
        stage_index: int | None = None,
        origin: Net | None = None,
        stage: Experiment | None = None,
    ) -> None:
        self.name = name
        self.seed = seed
        self._fitter = fitter
        self._students = students
        self._teacher = teacher
        self._stage_index = stage_index
        self._origin = origin
        of_recipe = students.stages[-1 if stage_index is None else stage_index]
        self._stage: Experiment = of_recipe if stage is None else stage
        self._recipe = fitter.evaluator.experiment.recipe
        if stage_index is not None:
            self._recipe = self._stage.recipe
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
        if self._stage_index is not None:
            return self._students.for_stage(self._stage_index, self.seed, self._origin)
        return self._students.exported(self.seed)

    def teacher(self) -> Teacher:
        """Return a copy of the teacher."""
        assert self._teacher is not None
        return copy.deepcopy(self._teacher)

    def teacher_outputs(self, samples: Samples) -> Outputs:
        """Return the task's ``decisions`` of the teacher for training samples, in their order."""
        teacher = self._fitter.evaluator.teacher_outputs["train"]
        outputs: Outputs = teacher({"index": samples.index})
        return outputs

    def fit(self, scheme: Scheme, samples: Samples) -> FitResult:
        """Train with the options of the recipe for the number of steps of the distilled student."""
        stages = self._students.stages if self._stage_index is None else [self._stage]
        steps = sum(num_training_steps(stage) for stage in stages)
        learners = list(scheme.learners)
        training = build_training(self._stage.recipe.train, self.seed, steps, learners)
        return self._fitter.fit(
            self.name, self.seed, scheme, samples, training, self._stage, self._stage_index or 0
        )


class StagedBaseline:
    """Trains a baseline on the data of every stage, one after another.

    Args:
        fitter: trains into the run folder.
        students: builds the students.

    Attributes:
        scores: scores on the test data of all stages; empty if they have the same data.
    """

    def __init__(self, fitter: Fitter, students: StudentBuilder) -> None:
        self.fitter = fitter
        self.students = students
        self.scores = StageScores(fitter.evaluator, students.stages)

    def train(self, name: str, seed: int, teacher: Teacher | None) -> tuple[Net, float]:
        """Train a baseline; return the student and the seconds of all trainings.

        With the same data in all stages there is one training, for the steps of all
        stages.

        Args:
            name: name of the baseline.
            seed: seed of the training.
            teacher: teacher of the recipe; None if it has none that can be scored.
        """
        self.scores = StageScores(self.fitter.evaluator, self.students.stages)
        baseline = catalogue.find("baseline", name)()
        if not self.scores.tests:
            result = baseline.train(
                BaselineTraining(name, seed, self.fitter, self.students, teacher)
            )
            return result.net, result.seconds
        earlier: dict[str, Net] = {}
        nets: list[Net] = []
        exemplars = Exemplars(self.students.stages, seed, nets.__getitem__)
        seconds = 0.0
        for index, stage in enumerate(self.students.stages):
            origin = earlier.get(stage.recipe.student.model)
            training = BaselineTraining(
                name,
                seed,
                self.fitter,
                self.students,
                teacher,
                index,
                origin,
                exemplars.stage(index),
            )
            result = baseline.train(training)
            nets.append(result.net)
            earlier |= {"previous": result.net, f"stage:{stage.recipe.name}": result.net}
            classifier = exemplars.classifier(index, result.net)
            self.scores.add(classifier, index)
            seconds += result.seconds
        return classifier, seconds
