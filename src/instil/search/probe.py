"""Check of the arms of a search: each is built and takes its first steps."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from instil.core import Net, Scheme
from instil.early_signals.gain_model import method_kind
from instil.early_signals.gradients import GradientSignals
from instil.early_signals.stage_signals import gradient_signals, stage_signals
from instil.early_signals.task_signals import TaskSignals
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import load_if_trained
from instil.experiment.training_options import build_engine, build_training
from instil.plan.loss_probe import LossFacts, first_batches, probe_losses
from instil.plan.step_timer import first_step_clock, seconds_per_step
from instil.recipe import build
from instil.recipe.sections import TeacherConfig
from instil.search.arms import Arm, arm_recipe
from instil.search.space import balanced_weight
from instil.training.step import train_step

BALANCED_RATIO = 10.0
"""A weight of 1 is kept if the gradient norms of a loss and of the label losses differ by at most
this factor."""
BALANCED_KINDS = ("features", "relations")
"""Kinds of objectives whose weights balance larger differences."""


class Probe:
    """Builds each arm and takes its first steps.

    Args:
        experiment: experiment of the recipe.
        base: data of the recipe.
    """

    def __init__(self, experiment: Experiment, base: Mapping[str, Any]) -> None:
        self._experiment = experiment
        self._base = base
        self._teachers: dict[int, Net | None] = {}
        self.task_signals: TaskSignals | None = None

    def check(self, arm: Arm) -> Arm:
        """Return an arm that trains, with its weight, its signals and the time of its step.

        Raises:
            ValueError: if a loss has no gradient or is not finite, and for all that the checks of
                a recipe refuse.
        """
        return self.time(arm, *self.build(arm))

    def build(self, arm: Arm) -> tuple[Experiment, Scheme]:
        """Return the experiment of an arm and its scheme after the checks of a recipe.

        Raises:
            RecipeError: for all that the checks refuse.
        """
        recipe = build(arm_recipe(self._base, arm, {}))
        experiment = replace(self._experiment, recipe=recipe)
        _, scheme, is_trained = list(dry_run(experiment, self.trained_teacher))[-1]
        if self.task_signals is None:
            # The first arm is the recipe's own. The student is not trained yet.
            self.task_signals = stage_signals(experiment.stages[-1], scheme, is_trained)
        return experiment, scheme

    def time(self, arm: Arm, experiment: Experiment, scheme: Scheme) -> Arm:
        """Take the first steps of a scheme; return its arm with weight, signals and time.

        Raises:
            ValueError: if a loss has no gradient or is not finite.
        """
        losses, seconds, signals = _first_steps(experiment.stages[-1], scheme)
        _check_losses(losses)
        return with_balanced_weight(replace(arm, step_seconds=seconds, signals=signals))

    def trained_teacher(self, stage: Experiment, config: TeacherConfig, index: int) -> Net | None:
        """Return a copy of the teacher, which every arm shares; None if it is not trained."""
        own = self._experiment.stages[0]
        if index not in self._teachers:
            config = own.recipe.teachers[index]
            self._teachers[index] = load_if_trained(own, config, index)
        return copy.deepcopy(self._teachers[index])


def with_balanced_weight(arm: Arm) -> Arm:
    """Return an arm whose loss on features or relations neither dominates nor vanishes.

    The scale of such a loss depends on the widths and adapters of the networks. A loss on logits
    keeps its published weight: with a balanced one, the best methods were worse.

    Args:
        arm: arm with its signals.
    """
    weight = balanced_weight(arm.signals) if arm.kind == "objective" else None
    if weight is None or 1 / BALANCED_RATIO <= weight <= BALANCED_RATIO:
        return arm
    if method_kind(arm.name) not in BALANCED_KINDS:
        return arm
    objectives = copy.deepcopy(arm.changes["objectives"])
    objectives[arm.name]["weight"] = weight
    return replace(arm, changes={**arm.changes, "objectives": objectives})


def _first_steps(
    stage: Experiment, scheme: Scheme
) -> tuple[LossFacts, float, GradientSignals | None]:
    """Return the losses of the first batch, the seconds of a step and the gradient signals."""
    recipe = stage.recipe
    seed = recipe.seeds[0]
    engine = build_engine(recipe.train)
    training = build_training(recipe.train, seed)
    engine.setup(scheme, training.optimization_of)
    loader = stage.loader(
        stage.train_data(seed), seed, sampler=recipe.data.sampler, with_mixing=True
    )
    batches = first_batches(loader, engine, seed)
    batch = next(batches)
    scheme.train()
    losses = probe_losses(scheme, engine, itertools.chain([batch], batches))
    signals, _ = gradient_signals(stage, scheme, engine, first_step_clock(seed))
    # The first step allocates the state of the optimizers and is not timed.
    train_step(engine, scheme, [batch])
    seconds = seconds_per_step(engine, scheme, batch, 2) * recipe.train.accumulate
    return losses, seconds, signals


def _check_losses(losses: LossFacts) -> None:
    for key, facts in losses.items():
        if not math.isfinite(facts["value"]):
            raise ValueError(f"the loss {key} is {facts['value']} on the first batch")
    if losses and all(facts["constant"] for facts in losses.values()):
        raise ValueError("no loss has a gradient on the first batch")
