"""Estimate of the duration of the training of a teacher."""

from __future__ import annotations

from instil.experiment.schemes import build_teacher_scheme
from instil.experiment.teachers import teacher_training_data
from instil.experiment.trained_teachers import build_teacher
from instil.experiment.training_options import build_engine, build_training
from instil.plan.fit_estimate import estimate_fit
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.step_timer import first_step_clock, seconds_per_step
from instil.training.step import train_step

NUM_TIMED_STEPS = 3


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
    engine = build_engine(train)
    loader = teacher_data.loader(teacher_data.splits.train, accumulate=train.accumulate)
    batch = engine.move(next(iter(loader)))
    scheme.prepare(batch)
    engine.setup(scheme, training.optimization_of)
    scheme.train()
    batch = batch | first_step_clock(index)
    # The first step allocates the state of the optimizers and is not timed.
    train_step(engine, scheme, [batch])
    seconds = seconds_per_step(engine, scheme, batch, NUM_TIMED_STEPS) * train.accumulate
    steps = train.steps or (train.epochs or 0) * loader.steps
    return seconds * steps * spec.checkpoint_at, ""
