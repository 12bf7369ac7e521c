"""Jobs of a recipe with their state, and estimates of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import load_if_trained
from instil.plan.doctor import examine_stage
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.run_estimate import estimate_teacher
from instil.recipe.sections import Recipe


@on_device_of_recipe
def overview(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """List the jobs of a recipe. A few steps of each training are timed; nothing is kept.

    Args:
        recipe: the recipe.
        folder: run folder whose finished students count as done; None for a new run.

    Returns:
        ``recipe`` (name), ``jobs`` and ``seconds`` (of all trainings that are left, one after
        another). A job has ``name``, ``kind``, ``inputs``, ``fingerprint`` and ``done``. A training
        that is left has ``seconds``, a student ``bytes``, and some teachers a ``note`` on the
        estimate. Baselines have the estimate of the distilled student, which is an upper bound.

    Raises:
        ValueError: for an error that would stop a run before its first step.
    """
    experiment = Experiment.from_recipe(recipe)
    plan = Plan.compile(experiment)
    student = _forecast_student(experiment)
    jobs = [_describe(plan, job, folder, student) for job in plan.jobs]
    seconds = sum(job.get("seconds", 0.0) for job in jobs)
    return {"recipe": recipe.name, "jobs": jobs, "seconds": seconds}


def _forecast_student(experiment: Experiment) -> dict[str, float]:
    """Sum the time of all stages, and take the largest memory."""
    forecasts = [
        examine_stage(stage, scheme, is_trained)["forecast"]
        for stage, scheme, is_trained in dry_run(experiment, load_if_trained)
    ]
    return {
        "seconds": sum(forecast["seconds"] for forecast in forecasts),
        "bytes": max(forecast["bytes"] for forecast in forecasts),
    }


def _describe(
    plan: Plan, job: Job, folder: Path | None, student: dict[str, float]
) -> dict[str, Any]:
    description: dict[str, Any] = {
        "name": job.name,
        "kind": job.kind,
        "inputs": list(job.inputs),
        "fingerprint": job.fingerprint,
        "done": plan.is_done(job, folder),
    }
    if description["done"] or not job.is_training:
        return description
    if job.kind == "teacher":
        seconds, note = estimate_teacher(plan, job)
        return description | {"seconds": seconds} | ({"note": note} if note else {})
    return description | student
