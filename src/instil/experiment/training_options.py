"""Training options of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from instil.engine import Engine, Optimization
from instil.experiment.experiment import Experiment
from instil.recipe.sections import (
    OptimizerConfig,
    TrainConfig,
)
from instil.training.fit import Training


def build_training(
    train: TrainConfig,
    seed: int,
    length: int | None = None,
    learners: Sequence[str] | None = None,
    until: float = 1.0,
) -> Training:
    """The recipe's ``train`` section as ``fit`` takes it; ``length``: so many steps instead of its own; ``learners``: those there are."""
    return Training(
        epochs=None if length else train.epochs,
        steps=length or train.steps,
        until=until,
        optimizer=_optimization(train.optimizer),
        optimizers={
            learner: _optimization(train.optimizer_of(learner))
            for learner in train.optimizers
            if learners is None or learner in learners
        },
        schedule=train.schedule,
        warmup=train.warmup,
        accumulate=train.accumulate,
        allow_coupled_cut=train.allow_coupled_cut,
        precision=train.precision,
        clip=train.clip,
        compile=train.compile,
        shard=train.shard,
        seed=seed,
        evaluate_every=train.evaluate_every,
        evaluate_steps=train.evaluate_steps,
        checkpoint_every=train.checkpoint_every,
        checkpoint_steps=train.checkpoint_steps,
        checkpoint_minutes=train.checkpoint_minutes,
        sync_batch_norm=train.sync_batch_norm,
    )


def _optimization(optimizer: OptimizerConfig) -> Optimization:
    options = {"lr": optimizer.lr, **optimizer.options}
    return Optimization(optimizer.type, options, tuple(optimizer.groups))


def num_training_steps(experiment: Experiment) -> int:
    """Optimizer steps that the ``train`` section asks for on all samples of the student."""
    train = experiment.recipe.train
    if train.steps is not None:
        return train.steps
    return (train.epochs or 0) * experiment.loader(
        experiment.samples, accumulate=train.accumulate, sampler=experiment.recipe.data.sampler
    ).steps


def autocast_context(train: TrainConfig) -> AbstractContextManager[Any]:
    """The context in which a teacher is asked outside of training, so that it computes as in it."""
    return Engine(precision=train.precision).autocast()
