"""Number of trainings in a run, and an estimate of their duration."""

from __future__ import annotations

from typing import Any

from instil.engine import Engine
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import build_teacher_scheme
from instil.experiment.teachers import teacher_training_data
from instil.experiment.trained_teachers import build_teacher
from instil.experiment.training_options import build_training
from instil.plan.fit_estimate import estimate_fit
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.step_timer import first_step_clock, seconds_per_step
from instil.plan.training_progress import trainings
from instil.training.step import train_step

NUM_TIMED_STEPS = 3


def estimate_run(experiment: Experiment, student_seconds: float) -> dict[str, Any]:
    """Estimate the duration of a whole run from a few timed steps.

    Args:
        experiment: experiment of the whole recipe.
        student_seconds: estimate for the distilled student of one seed, all stages. The other
            students are assumed to take the same time, though a step without a teacher is faster.

    Returns:
        ``teachers`` (number to train), ``cached`` (number trained by earlier runs), ``seeds``
        (number), ``arms`` (names of the students of each seed) and ``trainings`` (total number).
        ``teacher_seconds`` and ``seconds`` do not include evaluations. ``notes`` are sentences on
        the origin of the estimates.
    """
    plan = Plan.compile(experiment)
    count = trainings(plan)
    jobs = [job for job in plan.pending(None) if job in plan.teachers]
    estimates = [estimate_teacher(plan, job) for job in jobs]
    seconds = sum(seconds for seconds, _ in estimates)
    return {
        "teachers": count.teachers,
        "cached": count.cached,
        "seeds": count.seeds,
        "arms": list(count.arms),
        "trainings": count.total,
        "teacher_seconds": seconds,
        "notes": list(dict.fromkeys(note for _, note in estimates if note)),
        "seconds": seconds + count.students * student_seconds,
    }


def estimate_teacher(plan: Plan, job: Job) -> tuple[float, str]:
    """Estimate the seconds of the whole training of a teacher.

    Args:
        plan: the plan.
        job: training of a teacher.

    Returns:
        Seconds, and a sentence on the origin of the estimate; empty for timed steps.
    """
    stage, index = plan.experiment.stages[job.stage_index], job.teacher_index
    spec = stage.recipe.teachers[index]
    teacher_data = teacher_training_data(stage, spec, index).for_network(spec)
    if spec.is_fitted:
        estimate = estimate_fit(stage, teacher_data, spec, index)
        return estimate.seconds, estimate.note
    train = stage.recipe.teacher_train or stage.recipe.train
    scheme = build_teacher_scheme(teacher_data, build_teacher(stage, spec, index), spec)
    training = build_training(train, index, learners=list(scheme.learners))
    engine = Engine(precision=train.precision)
    loader = teacher_data.loader(teacher_data.splits.train, accumulate=train.accumulate)
    batch = engine.move(next(iter(loader)))
    scheme.prepare(batch)
    engine.setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
    scheme.train()
    batch = batch | first_step_clock(index)
    # The first step allocates the state of the optimizers and is not timed.
    train_step(engine, scheme, [batch])
    seconds = seconds_per_step(engine, scheme, batch, NUM_TIMED_STEPS) * train.accumulate
    steps = train.steps or (train.epochs or 0) * loader.steps
    return seconds * steps * spec.checkpoint_at, ""
