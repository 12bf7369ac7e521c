"""Checks and first steps of all jobs of a plan; no trained weights are kept."""

from __future__ import annotations

from typing import Any

from instil.experiment.data_checks import data_summary, validation_notes
from instil.experiment.device import on_device_of_recipe
from instil.experiment.experiment import Experiment
from instil.experiment.stored_teacher import check_evaluated_samples
from instil.plan.first_steps import FirstSteps
from instil.plan.plan import Plan
from instil.plan.run_estimate import estimate_run
from instil.recipe.learning_rate import learning_rate_note
from instil.recipe.sections import Recipe


@on_device_of_recipe
def doctor(recipe: Recipe) -> dict[str, Any]:
    """Examine the plan of a recipe: its data, and the first steps of every job.

    Args:
        recipe: the recipe.

    Returns:
        ``recipe`` (name), ``data`` (``data_summary``), ``run`` (``estimate_run``), ``stages``
        (``examine_stage``), ``baselines`` (seconds of one training of each), ``notes``, and
        ``problems``: everything that lets a run start but makes its result bad.

    Raises:
        ValueError: for an error that would stop a run before its first step.
    """
    experiment = Experiment.from_recipe(recipe)
    check_evaluated_samples(experiment)
    plan = Plan.compile(experiment)
    steps = FirstSteps.take(plan)
    problems: list[str] = []
    notes_of_stages: list[str] = []
    for stage in steps.stages:
        problems += stage["problems"]
        notes_of_stages += stage["notes"]
    run = estimate_run(steps)
    notes_of_data = getattr(experiment.visible_samples, "about", ())
    return {
        "recipe": recipe.name,
        "data": data_summary(experiment),
        "run": run,
        "stages": steps.stages,
        "baselines": steps.baselines,
        "notes": [
            *notes_of_data,
            *experiment.notes,
            *validation_notes(experiment),
            *dict.fromkeys(notes_of_stages),
            *_learning_rate_notes(experiment),
            *run["notes"],
        ],
        "problems": [*problems, *experiment.warnings],
    }


def _learning_rate_notes(experiment: Experiment) -> list[str]:
    """Notes on the learning rates of the stages, without duplicates."""
    has_stages = experiment.recipe.has_stages
    notes = [
        learning_rate_note(stage.recipe, has_stages)
        for stage in experiment.stages
        if not stage.recipe.student.is_fitted
    ]
    return list(dict.fromkeys(notes))
