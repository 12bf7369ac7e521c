"""Training of the trials of a search, with one shared teacher."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from instil.core import Net, Teacher
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.experiment import Experiment
from instil.experiment.offloaded_teachers import move_teacher
from instil.experiment.stored_teacher import stored_teacher
from instil.experiment.teachers import combine_teachers, prepare_teacher
from instil.experiment.training_options import autocast_context
from instil.export.student import save_student
from instil.plan.baseline_training import StagedBaseline
from instil.plan.distillation import Distillation
from instil.plan.evaluation import Evaluator
from instil.plan.fitting import Fitter, OnStep
from instil.plan.run_folder import RunFolder
from instil.plan.students import StudentBuilder
from instil.plan.teacher_scores import TeacherScores
from instil.plan.teacher_training import TeacherTrainer
from instil.recipe import build
from instil.recipe.sections import Recipe
from instil.search.failures import failed_outcome
from instil.search.folds import fold_experiments, mean_curve, mean_metrics
from instil.search.locked_test import TestLock
from instil.search.pruning import StopTrial
from instil.search.student_costs import evaluate_int8, num_parameters
from instil.search.trial_progress import TrialProgress
from instil.search.trials import Trial, read_result, write_result
from instil.search.work_folder import SharedTeachers, WorkFolder
from instil.training.train_state import TrainState


class Trainer:
    """Trains the trials of a search into its folder.

    Args:
        experiment: experiment of the recipe.
        folder: folder of the search.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.folder = folder
        self.lock = TestLock(experiment, folder)
        self.experiment = self.lock.experiment

    def train_teachers(self, recipe: Recipe | None = None) -> None:
        """Train the teachers of a recipe, unless the cache has them.

        Args:
            recipe: recipe with other teachers. None: that of the search.
        """
        stage = replace(self.experiment, recipe=recipe or self.experiment.recipe).stages[0]
        if stage.recipe.store is not None:
            return
        with WorkFolder(self.folder) as work:
            fitter = Fitter(work, Evaluator(self.experiment), _ignore)
            teachers = TeacherTrainer([stage], fitter)
            for index, config in enumerate(stage.recipe.teachers):
                teachers.network(stage, config, index)

    def train_assistant(self, recipe: Recipe, path: Path) -> None:
        """Train the student of a recipe and write its weights, unless the file exists.

        Args:
            recipe: recipe whose student is the assistant of a teacher.
            path: file of the weights.
        """
        if path.exists():
            return
        with WorkFolder(self.folder) as work:
            experiment = replace(self.experiment, recipe=recipe)
            net = self._distilled(experiment, recipe.seeds[0], work, _ignore)
            path.parent.mkdir(exist_ok=True)
            save_student(net, path)

    def evaluate_teacher(self, recipe: Recipe | None = None) -> dict[str, Any] | None:
        """Evaluate the teacher on validation and test data, after the finalists are chosen.

        Args:
            recipe: recipe with other teachers. None: that of the search.

        Returns:
            ``score`` (test headline metric), all metrics of ``test`` and ``validation``, and
            ``parameters``; none of them for a teacher of other classes. None without a teacher.

        Raises:
            LockedTestError: before the finalists are chosen.
        """
        complete = self.lock.open()
        experiment = replace(complete, recipe=recipe or complete.recipe)
        with WorkFolder(self.folder) as work:
            evaluator = Evaluator(complete)
            teachers = self._teachers(experiment, Fitter(work, evaluator, _ignore))
            teacher = TeacherScores(evaluator, experiment.stages, teachers, work).measure()
        if teacher is None:
            return None
        recorded = (teacher.cost or {}).get("parameters")  # of a store
        return {
            "score": teacher.test.get(complete.task.headline),
            "test": teacher.test,
            "validation": teacher.validation,
            "parameters": recorded or num_parameters(teacher.net) or None,
        }

    def train(self, trial: Trial) -> dict[str, Any]:
        """Return the result of a trial: from its file, or after its training."""
        finished = read_result(self.folder, trial)
        if finished is not None:
            return finished
        start = time.perf_counter()
        result = {
            "key": trial.key,
            "arm": trial.arm,
            "round": trial.round,
            "params": trial.params,
            "num_steps": trial.num_steps,
            "seed": trial.seed,
            **self._train(trial),
            "seconds": round(time.perf_counter() - start, 3),
        }
        return write_result(self.folder, result, self.experiment.task.headline)

    def _train(self, trial: Trial) -> dict[str, Any]:
        progress = [self._progress(trial) for _ in range(trial.num_folds)]
        curve = progress[0].curve if trial.num_folds == 1 else []
        outcome: dict[str, Any] = {"score": None, "curve": curve}
        try:
            if trial.num_folds > 1:
                return {"status": "complete"} | self._cross_validated(trial, progress)
            return {"status": "complete"} | outcome | self._scores(trial, progress[0])
        except StopTrial:
            return outcome | {"status": "stopped", "score": curve[-1][1]}
        except RuntimeError as error:  # such as a loss that is not finite, or a full memory
            steps_done = sum(one.num_steps for one in progress)
            return outcome | failed_outcome(error) | {"steps_done": steps_done}

    def _progress(self, trial: Trial) -> TrialProgress:
        task = self.experiment.task
        return TrialProgress(trial, task.headline, task.higher_is_better)

    def _cross_validated(self, trial: Trial, progress: list[TrialProgress]) -> dict[str, Any]:
        """Train on all folds but one, for each fold; return the mean score.

        A score is the mean over the samples of the fold and of the validation split.
        """
        metrics = []
        weights: list[float] = []
        folds = fold_experiments(self.experiment, build(trial.recipe), trial.num_folds)
        for fold, own in zip(folds, progress, strict=True):
            net = self._trained(trial, fold, own)
            metrics.append(Evaluator(fold).evaluate(net, "validation")[0])
            weights.append(len(fold.splits.validation))
            metrics.append(Evaluator(self.experiment).evaluate(net, "validation")[0])
            weights.append(len(self.experiment.splits.validation) / trial.num_folds)
        means = mean_metrics(metrics, weights)
        return {
            "score": means[self.experiment.task.headline],
            "validation": means,
            "curve": mean_curve([one.curve for one in progress]),
            "num_folds": trial.num_folds,
        }

    def _scores(self, trial: Trial, progress: TrialProgress) -> dict[str, Any]:
        """Train and evaluate the student of a trial."""
        recipe = build(trial.recipe)
        experiment = replace(self.experiment, recipe=recipe)
        net = self._trained(trial, experiment, progress)
        validation, _ = Evaluator(experiment).evaluate(net, "validation")
        scores = {"score": validation[experiment.task.headline], "validation": validation}
        if trial.is_final:
            complete = replace(self.lock.open(), recipe=recipe)
            scores["test"], _ = Evaluator(complete).evaluate(net, "test")
            scores["parameters"] = num_parameters(net)
            if trial.has_int8:
                scores["int8"] = evaluate_int8(complete, net)
        return scores

    def _trained(self, trial: Trial, experiment: Experiment, progress: TrialProgress) -> Net:
        """Train the student of a trial, whose progress gets its evaluations and steps."""
        with WorkFolder(self.folder) as work:
            work.on_log = progress.observe
            if trial.method == "distilled":
                return self._distilled(experiment, trial.seed, work, progress.count)
            evaluator = Evaluator(experiment)
            fitter = Fitter(work, evaluator, progress.count)
            students = StudentBuilder(experiment.stages, self._teachers(experiment, fitter))
            if experiment.recipe.teacher is not None or experiment.recipe.store is not None:
                evaluator.teacher_outputs["train"] = self._training_outputs
            net, _ = StagedBaseline(fitter, students).train(trial.method, trial.seed, None)
            return net

    def _distilled(
        self, experiment: Experiment, seed: int, work: RunFolder, on_step: OnStep
    ) -> Net:
        """Train the distilled student of a recipe."""
        fitter = Fitter(work, Evaluator(experiment), on_step)
        teachers = self._teachers(experiment, fitter)
        students = StudentBuilder(experiment.stages, teachers)
        net, _ = Distillation(experiment.stages, fitter, teachers, students).train(seed)
        return net

    def _teachers(self, experiment: Experiment, fitter: Fitter) -> TeacherTrainer:
        """Return the teachers of a recipe: those of the search, unless it has others."""
        own = self.experiment.stages[0]
        configs = experiment.recipe.teachers
        if configs and configs != own.recipe.teachers:
            # Folds are those of the student: a teacher has all samples.
            stages = replace(self.experiment, recipe=experiment.recipe).stages
            return TeacherTrainer(stages, fitter)
        return SharedTeachers([own], fitter)

    @functools.cached_property
    def _training_outputs(self) -> CachedTeacher:
        """Decisions of the teacher for the training samples, for pseudo-labels."""
        stage = self.experiment.stages[0]
        evaluator = Evaluator(self.experiment)
        with autocast_context(stage.recipe.train):
            teacher = move_teacher(self.teacher(stage, evaluator), stage.recipe.train)
            return evaluator.cache_decisions(teacher, self.experiment.splits.train)

    def teacher(self, stage: Experiment, evaluator: Evaluator) -> Teacher:
        """Return the combined teacher of a stage, from its store or the cache."""
        if stage.recipe.store is not None:
            return stored_teacher(stage, "plain")
        with WorkFolder(self.folder) as work:
            teachers = SharedTeachers([stage], Fitter(work, evaluator, _ignore))
            configs = enumerate(stage.recipe.teachers)
            networks = [teachers.network(stage, config, index)[0] for index, config in configs]
        teacher = prepare_teacher(combine_teachers(stage, networks), stage)
        assert teacher is not None
        return teacher


def _ignore(name: str, seed: int | None, state: TrainState) -> None:
    """Ignore a step."""
