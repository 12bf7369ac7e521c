"""First steps of every job of a plan: losses, time and memory, without a trained result."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil import catalogue
from instil.core import Net, Scheme, Teacher
from instil.data.samples import Samples
from instil.experiment.dry_run import dry_run
from instil.experiment.fitted_student import is_fitted_student
from instil.experiment.trained_teachers import load_if_trained
from instil.experiment.training_options import build_engine, build_training, num_training_steps
from instil.plan.baseline_training import BaselineTraining
from instil.plan.examination import examine_stage
from instil.plan.fit_estimate import estimate_student_fit
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.plan.step_timer import first_step_clock, seconds_per_step
from instil.plan.teacher_estimate import estimate_teacher
from instil.recipe.errors import error_context
from instil.training.fit import FitResult
from instil.training.step import train_step

NUM_TIMED_STEPS = 3


@dataclass(frozen=True)
class FirstSteps:
    """Findings of the first steps of a plan.

    Attributes:
        plan: the plan.
        stages: findings of ``examine_stage`` for each stage.
        baselines: seconds of the whole training of each baseline. One that reads the teacher's
            outputs for samples has the time of the distilled student, which is an upper bound. It
            is left out if the teacher has no scores, as in a run.
    """

    plan: Plan
    stages: list[dict[str, Any]]
    baselines: dict[str, float]

    @classmethod
    def take(cls, plan: Plan) -> FirstSteps:
        """Take a few training steps of every stage and baseline; nothing is kept.

        Args:
            plan: the plan.

        Raises:
            ValueError: for an error that would stop a run before its first step.
        """
        runner = Runner(plan.experiment, RunFolder(Path()), _ignore)
        stages = []
        teacher: Teacher | None = None
        student: Net | None = None
        for stage, scheme, is_trained in dry_run(plan.experiment, load_if_trained):
            # Copied first: the examination trains the scheme.
            student = copy.deepcopy(scheme.student)
            stages.append(examine_stage(stage, scheme, is_trained))
            if len(stages) == runner.scores.stage_index + 1:
                teacher = scheme.teacher
        assert student is not None
        upper_bound = sum(stage["forecast"]["seconds"] for stage in stages)
        names = runner.arms(lambda: runner.scores.has_scores(teacher))
        baselines = dict.fromkeys(names[:-1], upper_bound)
        for name in baselines:
            if not catalogue.find("baseline", name).needs_teacher:
                with error_context(f"baselines.{name}"):
                    baselines[name] = _BaselineProbe(name, runner, student).seconds()
        return cls(plan, stages, baselines)

    def forecast(self, job: Job) -> dict[str, Any]:
        """Return the ``seconds`` of a job, and for a student the ``bytes`` that it needs.

        Some teachers have a ``note`` on the origin of the estimate.

        Args:
            job: the job; the dictionary is empty if it trains nothing or is left out.
        """
        if job.kind == "teacher":
            seconds, note = estimate_teacher(self.plan, job)
            return {"seconds": seconds} | ({"note": note} if note else {})
        forecasts = [stage["forecast"] for stage in self.stages]
        if job.kind == "stage":
            forecast = forecasts[job.stage_index]
            return {"seconds": forecast["seconds"], "bytes": forecast["bytes"]}
        if job.kind != "baseline":
            return {}
        if job.arm not in self.baselines:
            return {}
        memory = max(forecast["bytes"] for forecast in forecasts)
        return {"seconds": self.baselines[job.arm], "bytes": memory}


class _BaselineProbe(BaselineTraining):
    """Training of a baseline that ends after a few steps."""

    def __init__(self, name: str, runner: Runner, student: Net) -> None:
        seed = runner.experiment.recipe.seeds[0]
        super().__init__(name, seed, runner.fitter, runner.students, None)
        self._student = student
        self._seconds = 0.0

    def seconds(self) -> float:
        """Estimate the seconds of the whole training."""
        catalogue.find("baseline", self.name)().train(self)
        return self._seconds

    def student(self) -> Net:
        """Return a copy of the untrained student."""
        return copy.deepcopy(self._student)

    def fit(self, scheme: Scheme, samples: Samples) -> FitResult:
        """Time a few steps, or the fit of an estimator."""
        if is_fitted_student(scheme):
            self._seconds = estimate_student_fit(self._stage, scheme, samples).seconds
            return FitResult(scheme.student, [], self._seconds)
        train = self._stage.recipe.train
        steps = sum(num_training_steps(stage) for stage in self._students.stages)
        training = build_training(train, self.seed, steps, list(scheme.learners))
        engine = build_engine(train)
        loader = self._stage.loader(samples, self.seed, accumulate=train.accumulate)
        batch = engine.move(next(iter(loader)))
        scheme.to(engine.device).prepare(batch)
        engine.setup(scheme, training.optimization_of)
        scheme.train()
        batch = batch | first_step_clock(self.seed)
        # The first step allocates the state of the optimizers and is not timed.
        train_step(engine, scheme, [batch])
        per_step = seconds_per_step(engine, scheme, batch, NUM_TIMED_STEPS) * train.accumulate
        self._seconds = per_step * steps
        return FitResult(scheme.student, [], self._seconds)


def _ignore(name: str, seed: int | None, state: Any) -> None:
    """Ignore a step."""
