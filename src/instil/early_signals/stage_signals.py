"""Signals before trials of one stage of a recipe."""

from __future__ import annotations

import itertools
import logging

import torch

from instil.capabilities import Precomputes
from instil.cards import has_tag
from instil.core import Batch, Scheme, Teacher
from instil.early_signals.gradients import (
    NUM_GRADIENT_BATCHES,
    GradientSignals,
    compare_gradients,
)
from instil.early_signals.task_signals import TaskSignals, measure_task_signals
from instil.engine import Engine
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_scheme
from instil.experiment.teachers import teacher_class_names
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen

log = logging.getLogger("instil")


def stage_signals(experiment: Experiment, scheme: Scheme, is_trained: bool) -> TaskSignals:
    """Measure the signals of teacher, student and data of a stage.

    The outputs of some teachers are left out: of a store, of a server, of other classes or tokens,
    and of teachers whose outputs spend a privacy budget.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme of the stage, which is not trained yet.
        is_trained: whether its teachers are trained already.
    """
    teacher = with_all_roles(scheme.teacher)
    if teacher is not None and not _is_comparable(experiment, teacher):
        teacher = None
    try:
        return measure_task_signals(experiment, scheme.student, teacher, is_trained)
    except Exception as error:  # signals are advice, on which no search and no check depends
        log.warning("Signals before trials: not measured. %s: %s", type(error).__name__, error)
        return TaskSignals()


def with_all_roles(teacher: Teacher | None) -> Teacher | None:
    """Return a teacher with the same networks that computes all roles; None if it has none.

    Args:
        teacher: teacher of a prepared scheme, which may compute only the roles that are read.
    """
    if isinstance(teacher, Frozen):
        return Frozen(teacher.net)
    return teacher if isinstance(teacher, Ensemble) else None


def _is_comparable(experiment: Experiment, teacher: Teacher) -> bool:
    configs = experiment.recipe.teachers
    if has_tag(teacher, "disjoint_data") or has_tag(teacher, "merged_classes"):
        return False
    # The answers of a server may cost money, and other tokens have no common items.
    if any(config.remote or config.tokenizer or config.earlier for config in configs):
        return False
    own_classes = tuple(experiment.splits.classes)
    names = [tuple(teacher_class_names(experiment, index)) for index in range(len(configs))]
    return all(class_names == own_classes for class_names in names)


def gradient_signals(
    experiment: Experiment, scheme: Scheme, engine: Engine, clock: Batch
) -> tuple[GradientSignals | None, dict[str, GradientSignals]]:
    """Compare the gradients of the losses of a stage with that of its label losses.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme, in train mode.
        engine: engine on which ``setup`` was called with the scheme.
        clock: entries that a training adds to the batch of its first step.

    Returns:
        See ``compare_gradients``.
    """
    recipe = experiment.recipe
    label_losses = {
        name
        for name, config in recipe.objectives.items()
        if config.type in experiment.task.label_objectives
    }
    if not label_losses:
        return None, {}
    seed = recipe.seeds[0]
    samples = samples_for_scheme(scheme, experiment.train_data(seed))
    # The random state of the caller stays as it is.
    with torch.random.fork_rng():
        loader = experiment.loader(
            samples,
            seed,
            accumulate=recipe.train.accumulate,
            sampler=recipe.data.sampler,
            with_mixing=True,
        )
        # In a dry run, such a teacher has seen the first batch only.
        has_one = isinstance(scheme.teacher, Precomputes)
        chosen = itertools.islice(loader, 1 if has_one else NUM_GRADIENT_BATCHES)
        batches = [engine.move(batch) | clock for batch in chosen]
        try:
            return compare_gradients(scheme, engine, batches, label_losses)
        except RuntimeError as error:  # a scheme may allow one step per batch only
            log.warning("Signals of gradients: not measured. %s", error)
            return None, {}
