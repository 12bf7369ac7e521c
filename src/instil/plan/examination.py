"""Examination of one stage on its first batch."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import torch

from instil.capabilities import FiltersTeacherSequences
from instil.core import Batch, Outputs, Scheme
from instil.early_signals.stage_signals import gradient_signals, stage_signals
from instil.engine import Engine
from instil.experiment.data_checks import data_problems
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import is_fitted_student
from instil.experiment.schemes import samples_for_scheme
from instil.experiment.training_options import build_engine, build_training
from instil.experiment.weighting_advice import weighting_advice
from instil.plan.fitted_examination import examine_fitted_stage
from instil.plan.forecast import forecast_training
from instil.plan.loss_probe import first_batches, probe_losses
from instil.plan.net_summary import compare_outputs, summarize_net
from instil.plan.stage_problems import stage_problems
from instil.plan.step_timer import first_step_clock


def examine_stage(experiment: Experiment, scheme: Scheme, is_trained: bool) -> dict[str, Any]:
    """Examine one stage on its first batch. The scheme is trained for a few steps.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme of the stage.
        is_trained: whether its teachers are trained already.

    Returns:
        ``scheme``, ``teacher_trained``, ``student`` and ``teacher`` (``summarize_net``; None
        without a teacher), ``objectives`` (``probe_losses``), ``match`` (``compare_outputs``),
        ``signals`` (``task`` of ``TaskSignals`` and ``losses`` of ``GradientSignals``),
        ``forecast`` (``forecast_training``), ``notes`` and ``problems``. A student that is fitted
        without gradients has no entries in ``objectives``.
    """
    if is_fitted_student(scheme):
        return examine_fitted_stage(experiment, scheme, is_trained)
    notes = [] if is_trained else _remove_filter(scheme)
    recipe = experiment.recipe
    seed = recipe.seeds[0]
    engine = build_engine(recipe.train)
    training = build_training(recipe.train, seed)
    engine.setup(scheme, training.optimization_of)
    samples = samples_for_scheme(scheme, experiment.train_data(seed))
    loader = experiment.loader(
        samples,
        seed,
        accumulate=recipe.train.accumulate,
        sampler=recipe.data.sampler,
        with_mixing=True,
    )
    batches = first_batches(loader, engine, seed)
    batch = next(batches)
    with torch.no_grad():
        student_outputs = scheme.student(batch)
        teacher_outputs = scheme.teacher_outputs(batch)
    # Before the probes, whose forward passes change the statistics of BatchNorm.
    task_signals = {"task": stage_signals(experiment, scheme, is_trained).to_json()}
    scheme.train()
    # The losses come first: the forecast takes training steps, which change the weights.
    findings = {
        "scheme": recipe.scheme.type,
        "teacher_trained": is_trained,
        "student": summarize_net(scheme.student, student_outputs),
        "teacher": _teacher_summary(scheme, teacher_outputs),
        "objectives": probe_losses(scheme, engine, itertools.chain([batch], batches)),
        "match": _match(experiment, student_outputs, teacher_outputs, batch),
        "signals": task_signals | _gradient_facts(experiment, scheme, engine, is_trained),
        "forecast": forecast_training(experiment, scheme, engine, batch),
    }
    problems = [*data_problems(experiment, samples, batch, scheme)]
    problems += [*stage_problems(findings, scheme), *weighting_advice(experiment)]
    return findings | {"notes": notes, "problems": problems}


def _remove_filter(scheme: Scheme) -> list[str]:
    """Use all sequences of an untrained teacher, which may all have errors; return a note on it."""
    if isinstance(scheme, FiltersTeacherSequences) and scheme.remove_filter():
        return [
            "The teacher is not trained yet, so its texts are not filtered here. `instil run` "
            "filters those of the trained teacher."
        ]
    return []


def _gradient_facts(
    experiment: Experiment, scheme: Scheme, engine: Engine, is_trained: bool
) -> dict[str, dict[str, Any]]:
    # The gradients towards an untrained teacher carry no information.
    if not is_trained:
        return {"losses": {}}
    clock = first_step_clock(experiment.recipe.seeds[0])
    _, losses = gradient_signals(experiment, scheme, engine, clock)
    return {"losses": {name: asdict(signals) for name, signals in losses.items()}}


def _match(
    experiment: Experiment, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch
) -> dict[str, float]:
    is_regression = experiment.task.kind == "real"
    return {} if is_regression else compare_outputs(student_outputs, teacher_outputs, batch)


def _teacher_summary(scheme: Scheme, outputs: Outputs) -> dict[str, Any] | None:
    return None if scheme.teacher is None else summarize_net(scheme.teacher, outputs)
