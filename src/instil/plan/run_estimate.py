"""Number of trainings that a run means, and the time that they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from instil.engine import Engine
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import build_teacher_scheme
from instil.experiment.teachers import teacher_training_data
from instil.experiment.trained_teachers import build_teacher, cache_path
from instil.experiment.training_options import build_training
from instil.plan.arm_progress import trainings
from instil.recipe.sections import TeacherConfig
from instil.training.step import train_step

TIMED_STEPS = 3


def estimate_run(experiment: Experiment, student_seconds: float) -> dict[str, Any]:
    """Estimate a whole run from a few timed steps.

    Args:
        experiment: the experiment of the whole recipe.
        student_seconds: estimate for the distilled student of one seed, all stages. The other students
            are counted with the same time, though a step without a teacher is faster.

    Returns:
        ``teachers`` (to train), ``cached`` (teachers from earlier runs), ``seeds``, ``arms`` (students of
        each seed), ``trainings``, ``teacher_seconds`` and ``seconds``. Evaluations are not counted.
    """
    count = trainings(experiment)
    teacher_seconds = sum(
        _teacher_seconds(stage, spec, index) for stage, spec, index in _untrained(experiment)
    )
    return {
        "teachers": count.teachers,
        "cached": count.cached,
        "seeds": count.seeds,
        "arms": list(count.arms),
        "trainings": count.total,
        "teacher_seconds": teacher_seconds,
        "seconds": teacher_seconds + count.students * student_seconds,
    }


def _untrained(experiment: Experiment) -> Sequence[tuple[Experiment, TeacherConfig, int]]:
    """Each teacher that a run would train; one that several stages share stands once."""
    untrained_teachers: dict[Path, tuple[Experiment, TeacherConfig, int]] = {}
    for stage in experiment.stages if experiment.recipe.store is None else ():
        for index, spec in enumerate(stage.recipe.teachers):
            if not (spec.earlier or spec.ready):
                untrained_teachers[cache_path(stage, spec, index)] = stage, spec, index
    return [entry for file, entry in untrained_teachers.items() if not file.exists()]


def _teacher_seconds(stage: Experiment, spec: TeacherConfig, index: int) -> float:
    """Time of all steps of a teacher's training, from a few of them."""
    own = teacher_training_data(stage, spec, index).for_network(spec)
    train = stage.recipe.teacher_train or stage.recipe.train
    scheme = build_teacher_scheme(own, build_teacher(stage, spec, index), spec)
    training = build_training(train, index, learners=list(scheme.learners))
    engine = Engine(precision=train.precision)
    loader = own.loader(own.splits.train, accumulate=train.accumulate)
    batch = engine.move(next(iter(loader)))
    scheme.prepare(batch)
    engine.setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
    scheme.train()
    clock = {
        "step": torch.tensor(0),
        "progress": torch.tensor(0.0),
        "seed": torch.tensor(index),
        "epoch_ends": torch.tensor(False),
    }
    train_step(engine, scheme, [batch | clock])
    began = time.perf_counter()
    for _ in range(TIMED_STEPS):
        train_step(engine, scheme, [batch | clock])
    seconds = (time.perf_counter() - began) / TIMED_STEPS * train.accumulate
    steps = train.steps or (train.epochs or 0) * loader.steps
    return seconds * steps * spec.checkpoint_at
