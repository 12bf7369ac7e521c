"""Training options of a recipe."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from instil.engine import Engine, Optimization
from instil.experiment.experiment import Experiment
from instil.recipe.sections import OptimizerConfig, TrainConfig
from instil.recipe.training_sections import torch_schedule
from instil.training.fit import Training
from instil.training.selection import EarlyStopping


def build_training(
    train: TrainConfig,
    seed: int,
    num_steps: int | None = None,
    learners: Collection[str] | None = None,
    until: float = 1.0,
) -> Training:
    """Build the training options of ``fit`` from a ``train`` section.

    Args:
        train: the section.
        seed: seed of the run.
        num_steps: number of optimizer steps; None: the length of the section.
        learners: names of the learners that exist. Optimizers of others are left out; None: none
            are left out.
        until: share of the steps after which the training stops.
    """
    return Training(
        epochs=None if num_steps else train.epochs,
        steps=num_steps or train.steps,
        until=until,
        optimizer=_optimization(train.optimizer),
        optimizers={
            learner: _optimization(train.optimizer_of(learner))
            for learner in train.optimizers
            if learners is None or learner in learners
        },
        schedule=_schedule(train),
        warmup=train.warmup,
        accumulate=train.accumulate,
        allow_coupled_cut=train.allow_coupled_cut,
        precision=train.precision,
        clip=train.clip,
        compile=train.compile,
        shard=train.shard,
        shard_group=train.shard_group,
        seed=seed,
        evaluate_every=train.evaluate_every,
        evaluate_steps=train.evaluate_steps,
        checkpoint_every=train.checkpoint_every,
        checkpoint_steps=train.checkpoint_steps,
        checkpoint_minutes=train.checkpoint_minutes,
        log_steps=train.log_steps,
        sync_batch_norm=train.sync_batch_norm,
        activation_checkpointing=train.activation_checkpointing,
        average=train.average,
        keep=train.keep,
        early_stopping=_early_stopping(train),
    )


def num_training_steps(experiment: Experiment) -> int:
    """Return the number of optimizer steps of the student on all samples."""
    train = experiment.recipe.train
    if train.steps is not None:
        return train.steps
    loader = experiment.loader(
        experiment.samples, accumulate=train.accumulate, sampler=experiment.recipe.data.sampler
    )
    return (train.epochs or 0) * loader.steps


def build_engine(train: TrainConfig) -> Engine:
    """Build an engine for a few steps in this process, with the memory of a training."""
    return Engine(
        precision=train.precision, activation_checkpointing=train.activation_checkpointing
    )


def autocast_context(train: TrainConfig) -> AbstractContextManager[Any]:
    """Return the context that runs a teacher outside training in the precision of training."""
    return Engine(precision=train.precision).autocast()


def _schedule(train: TrainConfig) -> Any:
    if isinstance(train.schedule, str):
        return train.schedule
    # A baseline may train for a number of steps: its schedule still counts the recipe's epochs.
    return torch_schedule(train.schedule, train.epochs)


def _early_stopping(train: TrainConfig) -> EarlyStopping | None:
    rule = train.early_stopping
    return None if rule is None else EarlyStopping(rule.patience, rule.min_delta)


def _optimization(optimizer: OptimizerConfig) -> Optimization:
    options = {"lr": optimizer.lr, **optimizer.options}
    return Optimization(optimizer.type, options, tuple(optimizer.groups))
