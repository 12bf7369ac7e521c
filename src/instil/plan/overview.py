"""Jobs of a recipe with their state, and estimates of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instil.experiment import threads
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.plan.first_steps import FirstSteps
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.plan.shared_students import SharedStudents
from instil.plan.thread_count import restore_threads
from instil.recipe.sections import Recipe


@on_device_of_recipe
def overview(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """List the jobs of a recipe. A few steps of each training are timed; nothing is kept.

    Args:
        recipe: the recipe.
        folder: run folder whose finished students count as done; None for a new run.

    Returns:
        ``recipe`` (name), ``jobs`` and ``seconds`` (of all trainings that are left, one after
        another). A job has ``name``, ``kind``, ``inputs``, ``fingerprint``, ``done``, ``cached``
        (whether an earlier run has its result), and for a training that is left ``seconds`` and,
        for a student, ``bytes``. A baseline that reads the teacher's outputs for samples has the
        estimate of the distilled student, which is an upper bound.

    Raises:
        ValueError: for an error that would stop a run before its first step.
    """
    experiment = Experiment.from_recipe(recipe)
    plan = Plan.compile(experiment)
    run_folder = RunFolder(folder or Path())
    *_, (_, scheme, _) = dry_run(experiment)
    # The cache holds results for the number of threads that a run would choose.
    if not restore_threads(run_folder):
        batch = next(iter(experiment.loader(experiment.samples)))
        threads.choose_num_threads(scheme, batch)
    shared = SharedStudents(plan, run_folder)
    steps = FirstSteps.take(plan)
    jobs = [_describe(shared, steps, job, folder) for job in plan.jobs]
    seconds = sum(job.get("seconds", 0.0) for job in jobs)
    return {"recipe": recipe.name, "jobs": jobs, "seconds": seconds}


def _describe(
    shared: SharedStudents, steps: FirstSteps, job: Job, folder: Path | None
) -> dict[str, Any]:
    is_done = shared.plan.is_done(job, folder)
    is_cached = is_done if job.kind == "teacher" else shared.is_cached(job)
    description: dict[str, Any] = {
        "name": job.name,
        "kind": job.kind,
        "inputs": list(job.inputs),
        "fingerprint": job.fingerprint,
        "done": is_done,
        "cached": is_cached,
    }
    return description if is_done or is_cached else description | steps.forecast(job)
