"""Number of trainings in a run, and an estimate of their duration."""

from __future__ import annotations

from typing import Any

from instil.plan.first_steps import FirstSteps
from instil.plan.training_progress import trainings


def estimate_run(steps: FirstSteps) -> dict[str, Any]:
    """Estimate the duration of a whole run from a few timed steps of its jobs.

    Args:
        steps: first steps of the plan.

    Returns:
        ``teachers`` (number to train), ``cached`` (number trained by earlier runs), ``seeds``
        (number), ``arms`` (names of the students of each seed) and ``trainings`` (total number).
        ``teacher_seconds`` and ``seconds`` do not include evaluations. ``notes`` are sentences on
        the origin of the estimates.
    """
    count = trainings(steps.plan)
    arms = [*steps.baselines, "distilled"]
    seconds = {"teacher": 0.0, "baseline": 0.0, "stage": 0.0}
    notes: dict[str, None] = {}
    for job in steps.plan.pending(None):
        if job.is_training:
            forecast = steps.forecast(job)
            seconds[job.kind] += forecast.get("seconds", 0.0)
            notes |= dict.fromkeys([forecast["note"]] if "note" in forecast else [])
    return {
        "teachers": count.teachers,
        "cached": count.cached,
        "seeds": count.seeds,
        "arms": arms,
        "trainings": count.teachers + count.seeds * len(arms),
        "teacher_seconds": seconds["teacher"],
        "notes": list(notes),
        "seconds": sum(seconds.values()),
    }
