"""Examination of a stage whose student is fitted without gradients."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from instil.core import Scheme
from instil.early_signals.stage_signals import stage_signals
from instil.engine import init_distributed
from instil.experiment.data_checks import data_problems
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_scheme
from instil.items import to_device
from instil.plan.fit_estimate import estimate_student_fit
from instil.plan.net_summary import summarize_net


def examine_fitted_stage(
    experiment: Experiment, scheme: Scheme, is_trained: bool
) -> dict[str, Any]:
    """Examine a stage whose student has no gradients.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme of the stage.
        is_trained: whether its teachers are trained already.

    Returns:
        Entries of ``examine_stage``; ``objectives`` and ``match`` are empty.
    """
    seed = experiment.recipe.seeds[0]
    samples = samples_for_scheme(scheme, experiment.train_data(seed))
    loader = experiment.loader(samples, shuffle=False)
    (batch,) = itertools.islice(loader, 1)
    scheme.to(init_distributed())
    on_device = to_device(batch, init_distributed())
    with torch.no_grad():
        student_outputs = scheme.student(on_device)
        teacher_outputs = scheme.teacher_outputs(on_device)
    teacher = None if scheme.teacher is None else summarize_net(scheme.teacher, teacher_outputs)
    estimate = estimate_student_fit(experiment, scheme, samples)
    forecast = {
        "steps": 1,
        "seconds_per_step": estimate.seconds,
        "seconds": estimate.seconds,
        "bytes": sum(value.nbytes for value in batch.values())
        * len(samples)
        // len(batch["label"]),
        "activation_bytes": 0,
        "note": estimate.note,
    }
    return {
        "scheme": experiment.recipe.scheme.type,
        "teacher_trained": is_trained,
        "student": summarize_net(scheme.student, student_outputs),
        "teacher": teacher,
        "objectives": {},
        "match": {},
        "signals": {
            "task": stage_signals(experiment, scheme, is_trained).to_json(),
            "losses": {},
        },
        "forecast": forecast,
        "notes": [],
        "problems": list(data_problems(experiment, samples, batch, scheme)),
    }
