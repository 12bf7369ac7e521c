"""Execution of the training jobs of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instil import catalogue
from instil.cards import has_tag
from instil.core import Net, Teacher
from instil.engine import init_distributed
from instil.experiment.experiment import Experiment
from instil.plan import finished_students
from instil.plan.baseline_training import StagedBaseline
from instil.plan.distillation import Distillation
from instil.plan.evaluation import Evaluator
from instil.plan.fitting import Fitter, OnStep
from instil.plan.job import Job
from instil.plan.run_folder import RunFolder
from instil.plan.students import StudentBuilder
from instil.plan.teacher_scores import TeacherScores
from instil.plan.teacher_training import TeacherTrainer
from instil.plan.trained_model import TrainedModel

OnFinished = Callable[[str, int, "int | None"], None]
"""Callback with arm and seed of a student, and the index of a stage that others follow, or None."""


class Runner:
    """Trains the networks of a recipe into its run folder; finished ones are read from there.

    Args:
        experiment: data and task of the recipe.
        folder: run folder.
        on_step: called after every training step.

    Attributes:
        on_finished: called with arm and seed of every finished student, and None; for a finished
            stage that others follow with its index.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, on_step: OnStep) -> None:
        self.experiment = experiment
        self.folder = folder
        self.stages = experiment.stages
        self.evaluator = Evaluator(experiment)
        self.fitter = Fitter(folder, self.evaluator, on_step)
        self.teachers = TeacherTrainer(self.stages, self.fitter)
        self.students = StudentBuilder(self.stages, self.teachers)
        self.distillation = Distillation(self.stages, self.fitter, self.teachers, self.students)
        self.scores = TeacherScores(self.evaluator, self.stages, self.teachers, folder)
        self.on_finished: OnFinished = lambda arm, seed, stage_index: None
        self.distillation.on_stage = self._finish_stage
        self._teacher: TrainedModel | None = None
        self._is_teacher_measured = False
        self.baselines = StagedBaseline(self.fitter, self.students)

    def execute(self, job: Job) -> None:
        """Execute one job, unless its result is on the disk.

        Args:
            job: training, or evaluation of the teacher, whose inputs are finished.
        """
        if job.kind == "teacher":
            stage = self.stages[job.stage_index]
            spec = stage.recipe.teachers[job.teacher_index]
            self.teachers.network(stage, spec, job.teacher_index)
            return
        if job.kind == "evaluate":
            self.teacher()
        elif job.is_last:
            self.student(job.arm, job.seed)
        else:
            self._prepare_training()
            self.distillation.train_stage(job.seed, job.stage_index)

    def teacher(self) -> TrainedModel | None:
        """Build and score the teacher once; None for a recipe without one."""
        if not self._is_teacher_measured:
            self._teacher = self.scores.measure()
            self._is_teacher_measured = True
        return self._teacher

    def names(self) -> list[str]:
        """Return baselines and ``distilled`` in the order of their training.

        A baseline that reads the teacher's outputs needs a teacher that could be scored.
        """
        self.teacher()
        return self.arms(lambda: self.scores.is_scored)

    def arms(self, is_scored: Callable[[], bool]) -> list[str]:
        """Return baselines and ``distilled``, without baselines that need a scored teacher.

        Args:
            is_scored: returns whether the teacher has scores; called if a baseline needs them.

        Raises:
            ValueError: if the exported arm is such a baseline.
        """
        names = []
        for name in self.experiment.recipe.baselines:
            kind = catalogue.find("baseline", name)
            if kind.is_data_free or not kind.needs_teacher or is_scored():
                names.append(name)
        names.append("distilled")
        if (exported := self.experiment.recipe.exported_arm) not in names:
            raise ValueError(
                f"exported_arm: {exported} is not trained, since it reads outputs that this "
                "teacher does not have. Expected distilled or another baseline"
            )
        return names

    def student(self, name: str, seed: int) -> TrainedModel:
        """Return a student of one seed: from its files in the run folder, or trained.

        Args:
            name: name of a baseline, or ``distilled``.
            seed: seed of the training.
        """
        trained = self._finished(name, seed) or self._train(name, seed)
        self.on_finished(name, seed, None)
        return trained

    def _finish_stage(self, seed: int, stage_index: int) -> None:
        self.on_finished("distilled", seed, stage_index)

    def _finished(self, name: str, seed: int) -> TrainedModel | None:
        record = finished_students.read(self.folder, name, seed)
        if record is None:
            return None
        net = self._untrained(name, seed)
        if not finished_students.load_weights(self.folder, name, seed, net):
            return None
        self.fitter.log_again(name, seed, record.records)
        finished_students.delete_checkpoints(self.folder, name, seed, len(self.stages))
        return TrainedModel(
            net,
            record.test,
            record.validation,
            record.details,
            record.seconds,
            origin=record.origin,
        )

    def _prepare_training(self) -> None:
        """Load what every student is compared with."""
        self.teacher()
        self.scores.load_outputs()
        self.fitter.records = []

    def _train(self, name: str, seed: int) -> TrainedModel:
        self._prepare_training()
        self.folder.remove_records(name, seed)
        if name == "distilled":
            net, seconds = self.distillation.train(seed)
            stage_scores = self.distillation.scores
        else:
            net, seconds = self.baselines.train(name, seed, self.scores.teacher)
            stage_scores = self.baselines.scores
        validation, _ = self.evaluator.evaluate(net, "validation")
        test, details = self.evaluator.evaluate_completely(net, self._scored_teacher())
        if name == "distilled":
            test |= self.evaluator.evaluate_others(self.distillation.others, self.folder, seed)
            self._add_untrained_texts(details, seed)
        test |= stage_scores.metrics()
        if stage_scores.rows:
            details["stages"] = stage_scores.rows
        metrics: dict[str, Any] = {"test": test, "validation": validation, "details": details}
        record = metrics | {"seconds": seconds, "records": self.fitter.records}
        if name == "distilled":
            record["others"] = list(self.distillation.others)
        finished_students.write(self.folder, name, seed, net, record, len(self.stages))
        return TrainedModel(net, test, validation, details, seconds)

    def _add_untrained_texts(self, details: dict[str, Any], seed: int) -> None:
        """Add the texts of the student before its training to those of a language model."""
        if not details.get("continuations"):
            return
        # Built again: a search trains students too, and must not read test prompts.
        texts = self.evaluator.examples_of(self.distillation.untrained(seed, 0))
        for row, untrained in zip(details["continuations"], texts, strict=False):
            row["untrained"] = untrained

    def _scored_teacher(self) -> Teacher | None:
        """Return the teacher on its device, if it could be scored."""
        teacher = self.scores.teacher
        if teacher is None or not self.scores.is_scored:
            return None
        # Measuring its latency has moved it to the CPU.
        return teacher.to(init_distributed())

    def _untrained(self, name: str, seed: int) -> Net:
        """Build a network of the architecture that a training returns, for its weights."""
        last = len(self.stages) - 1
        scheme = self.stages[last].recipe.scheme.type
        if name != "distilled" or not has_tag(catalogue.find("scheme", scheme), "new_architecture"):
            return self.students.exported(seed)
        return self.distillation.untrained(seed, last)
