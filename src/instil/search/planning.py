"""Rounds of a search within its budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import inf

from instil.early_signals.gain_model import read_gain_model
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import num_training_steps
from instil.search.arms import Arm
from instil.search.prior import first_arms, order_by_model, within_budget
from instil.search.rounds import Schedule
from instil.search.schedule import plan_exhaustive, plan_random, plan_schedule
from instil.search.seed_halving import plan_seeds
from instil.search.state import Settings

OVERHEAD = 1.5
"""Time of a trial with its evaluations, as a multiple of the time of its steps."""
NUM_FINALISTS = 3
"""Largest number of methods that are trained again, besides the reference arms."""
NUM_STUDENTS = 6
"""Largest number of students that are trained again: points of the frontier."""
STUDENTS_SHARE = 1 / 3
"""Share of the budget of a search over students and methods that the students have."""


def plan_rounds(
    experiment: Experiment, settings: Settings, arms: list[Arm], num_jobs: int
) -> tuple[list[Arm], Schedule]:
    """Plan the rounds; a prior order decides which candidates a small budget leaves out.

    Args:
        experiment: experiment of the recipe.
        settings: settings of the search.
        arms: candidates and reference arms.
        num_jobs: number of processes.

    Returns:
        Arms that take part, and their schedule.

    Raises:
        ValueError: if the budget is smaller than the smallest search, or the model of gain does not
            know labels of this kind.
    """

    def plan(chosen: Sequence[Arm]) -> Schedule:
        return plan_search(experiment, settings, chosen, num_jobs)

    if settings.is_joint:
        return arms, plan_students(experiment, settings, arms, num_jobs)
    arms = _ordered(experiment, settings, arms)
    if settings.strategy == "seeds":
        return first_arms(arms, plan(arms))
    # Teachers are in the order of their cheap signals.
    has_order = settings.has_prior or settings.has_teachers
    return within_budget(arms, plan) if has_order else (arms, plan(arms))


def _ordered(experiment: Experiment, settings: Settings, arms: list[Arm]) -> list[Arm]:
    """Return the arms in the order in which a budget leaves out the last candidates."""
    if settings.has_prior:
        model = read_gain_model(settings.prior_file)
        if experiment.task.kind not in model["kinds"]:
            raise ValueError(
                f"--prior: the model has no studies with {experiment.task.kind} labels. Expected "
                f"labels of the kind {' or '.join(model['kinds'])}. Leave --prior out"
            )
        return order_by_model(arms, model)
    if settings.strategy == "seeds":
        shuffled = random.Random(settings.seed).sample(arms, len(arms))
        return sorted(shuffled, key=lambda arm: arm.is_reference)
    return arms


def plan_search(
    experiment: Experiment, settings: Settings, arms: Sequence[Arm], num_jobs: int
) -> Schedule:
    """Plan the rounds and the final trainings of arms that all take part.

    Args:
        experiment: experiment of the recipe.
        settings: settings of the search.
        arms: candidates and reference arms.
        num_jobs: number of processes.

    Raises:
        ValueError: if the budget is smaller than the smallest search.
    """
    full_steps = sum(num_training_steps(stage) for stage in experiment.stages)
    budget = _budget(settings, arms, num_jobs, full_steps)
    num_references = sum(arm.is_reference for arm in arms)
    num_candidates = len(arms) - num_references
    complete = plan_exhaustive(num_candidates, num_references, full_steps, settings.num_seeds)
    is_small = settings.has_teachers and not settings.has_options
    if settings.strategy == "exhaustive" or (is_small and complete.total_steps <= (budget or inf)):
        return complete
    if settings.strategy == "seeds":
        return plan_seeds(num_candidates, num_references, full_steps, budget, settings.num_seeds)
    schedule = plan_schedule(
        num_candidates,
        num_references,
        full_steps,
        budget,
        settings.num_trials if settings.has_options else 1,
        num_finalists=NUM_STUDENTS if settings.has_students else NUM_FINALISTS,
        num_seeds=settings.num_seeds,
        num_folds=settings.num_folds,
        num_refinements=settings.num_refinements if settings.has_refinements else 0,
    )
    return plan_random(schedule) if settings.strategy == "random" else schedule


def plan_students(
    experiment: Experiment, settings: Settings, arms: Sequence[Arm], num_jobs: int
) -> Schedule:
    """Plan the first phase of a search over students and methods, without final trainings.

    Args:
        experiment: experiment of the recipe.
        settings: settings of the search.
        arms: students.
        num_jobs: number of processes.

    Raises:
        ValueError: if the budget is smaller than the smallest search.
    """
    full_steps = sum(num_training_steps(stage) for stage in experiment.stages)
    budget = _budget(settings, arms, num_jobs, full_steps)
    return plan_schedule(
        len(arms),
        0,
        full_steps,
        None if budget is None else int(STUDENTS_SHARE * budget),
        num_finalists=NUM_STUDENTS,
        num_seeds=0,
        num_folds=settings.num_folds,
    )


def rest_of_budget(settings: Settings, schedule: Schedule) -> Settings:
    """Return the settings with the steps that a first phase leaves; without a limit, the same.

    Args:
        settings: settings of the search, with a limit in steps or in runs.
        schedule: rounds of the first phase.
    """
    budget = settings.max_steps
    if settings.max_runs is not None:
        budget = settings.max_runs * schedule.final_steps
    if budget is None:
        return settings
    left = max(1, budget - schedule.total_steps)
    return replace(settings, max_steps=left, max_runs=None)


def _budget(settings: Settings, arms: Sequence[Arm], num_jobs: int, full_steps: int) -> int | None:
    """Return the largest number of optimizer steps; None: no limit."""
    if settings.max_runs is not None:
        return settings.max_runs * full_steps
    if settings.max_seconds is not None:
        return steps_in_time(settings.max_seconds, arms, num_jobs)
    return settings.max_steps


def steps_in_time(seconds: float, arms: Sequence[Arm], num_jobs: int) -> int:
    """Return the number of optimizer steps that trials take in a time.

    Args:
        seconds: duration of the search.
        arms: arms; at least one has a measured time of a step.
        num_jobs: number of processes.
    """
    timed = [arm.step_seconds for arm in arms if arm.step_seconds]
    per_step = OVERHEAD * sum(timed) / len(timed)
    return int(seconds * num_jobs / per_step)
