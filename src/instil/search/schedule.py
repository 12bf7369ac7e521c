"""Plans of the rounds of a search within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from instil.search.rounds import Rung, Schedule, describe_arms, describe_steps, shrinking_note

MIN_STEPS = 1
MIN_ROUNDS = 3
"""Smallest number of rounds of a search over options."""
MAX_ROUNDS = 4
"""Number of rounds; with many candidates more of them leave after each round."""
STEP = 0.9
"""Factor by which the lengths of all rounds shrink until the budget suffices; they grow by its
inverse.
"""


def plan_schedule(
    num_candidates: int,
    num_references: int,
    full_steps: int,
    budget: int | None,
    num_trials: int = 1,
    eta: int = 3,
    num_finalists: int = 3,
    num_seeds: int = 3,
    num_folds: int = 1,
    num_refinements: int = 0,
) -> Schedule:
    """Plan successive halving within a budget.

    If the budget is larger than that of the usual rounds, they become longer.

    Args:
        num_candidates: arms besides the reference arms.
        num_references: reference arms.
        full_steps: optimizer steps of the recipe.
        budget: optimizer steps of all trainings of the student. None: no limit.
        num_trials: trainings of each arm in all rounds but the first.
        eta: factor by which the number of arms falls and the number of steps rises.
        num_finalists: largest number of finalists besides the references.
        num_seeds: seeds of the final trainings.
        num_folds: trainings of every trial that is not final.
        num_refinements: students that join the last round, unless the budget is too small.

    Raises:
        ValueError: if the budget is smaller than the smallest search.
    """
    num_finalists = min(num_finalists, num_candidates)
    min_rounds = MIN_ROUNDS if num_trials > 1 else 1
    counts = list(_counts(num_candidates, num_finalists, eta, min_rounds))
    rungs = tuple(
        Rung(
            count,
            num_trials if index else 1,
            max(MIN_STEPS, full_steps // eta ** (len(counts) - 1 - index)),
        )
        for index, count in enumerate(counts)
    )
    schedule = Schedule(
        rungs, num_references, num_finalists, num_seeds, full_steps, num_folds=num_folds
    )
    refined = replace(schedule, num_refinements=num_refinements)
    if budget is None:
        return refined
    if num_refinements and refined.total_steps <= budget:
        return _longest(refined, budget)
    if len(rungs) > 1 and num_trials == 1:
        # All candidates of the last round become finalists, so that it would choose nothing.
        schedule = replace(schedule, rungs=rungs[:-1])
    if schedule.total_steps <= budget:
        return _longest(schedule, budget)
    for smaller in _smaller(schedule):
        if smaller.total_steps <= budget:
            return replace(smaller, notes=(shrinking_note(schedule, smaller, budget),))
    raise ValueError(
        f"budget: too small. Expected at least {describe_steps(smaller)} for "
        f"{describe_arms(num_candidates + num_references, num_seeds)}, got {budget}. "
        "Raise the budget, or name fewer arms (--candidates or --students) or fewer --seeds"
    )


def plan_random(schedule: Schedule) -> Schedule:
    """Return a schedule of random search: one round of full trainings for the same steps."""
    affordable = schedule.search_steps // (schedule.num_folds * schedule.final_steps)
    num_candidates = max(1, affordable - schedule.num_references)
    rung = Rung(num_candidates, 1, schedule.final_steps)
    finalists = min(schedule.num_finalists, num_candidates)
    return replace(schedule, rungs=(rung,), num_finalists=finalists, num_refinements=0)


def plan_exhaustive(
    num_candidates: int, num_references: int, full_steps: int, num_seeds: int
) -> Schedule:
    """Return a schedule without rounds, whose finalists are all arms.

    Args:
        num_candidates: arms besides the reference arms.
        num_references: reference arms.
        full_steps: optimizer steps of the recipe.
        num_seeds: seeds of the trainings.
    """
    return Schedule((), num_references, num_candidates, num_seeds, full_steps)


def _counts(num_candidates: int, num_finalists: int, eta: int, min_rounds: int) -> Iterator[int]:
    """Yield the number of candidates of each round, which falls by a constant factor; 0 stays."""
    ratio = max(1.0, num_candidates / max(1, num_finalists))
    num_falls = math.ceil(math.log(ratio, eta))
    num_falls = min(MAX_ROUNDS - 1, max(min_rounds - 1, num_falls))
    for index in range(num_falls):
        # Rounded, since 81 / 27 ** (2 / 3) is 9.000000000000002.
        yield math.ceil(round(num_candidates / ratio ** (index / num_falls), 6))
    yield num_finalists


def _longest(schedule: Schedule, budget: int) -> Schedule:
    """Return the schedule with the longest rounds that the budget affords."""
    usual = schedule
    factor = 1.0
    while min(rung.num_steps for rung in schedule.rungs) < schedule.final_steps:
        factor /= STEP
        longer = _scaled(usual, factor)
        if longer.total_steps > budget:
            break
        schedule = longer
    return schedule


def _scaled(schedule: Schedule, factor: float) -> Schedule:
    """Return the schedule with rounds that are longer by a factor, up to the recipe's length."""
    rungs: list[Rung] = []
    for rung in schedule.rungs:
        num_steps = min(schedule.final_steps, int(rung.num_steps * factor))
        # Without new options, a second round of the same length would repeat the first one.
        if rung.num_trials > 1 or not rungs or rungs[-1].num_steps < schedule.final_steps:
            rungs.append(replace(rung, num_steps=num_steps))
    return replace(schedule, rungs=tuple(rungs))


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Yield schedules with fewer trials, then shorter rounds, then fewer finalists."""
    for num_trials in range(max(rung.num_trials for rung in schedule.rungs) - 1, 0, -1):
        rungs = tuple(
            replace(rung, num_trials=min(rung.num_trials, num_trials)) for rung in schedule.rungs
        )
        schedule = replace(schedule, rungs=rungs)
        yield schedule
    finalists = range(schedule.num_finalists, 0, -1)
    for num_finalists in finalists or (0,):
        shrunk = replace(schedule, num_finalists=num_finalists)
        lengths = [float(rung.num_steps) for rung in schedule.rungs]
        # A round that is shorter than this share of its length ranks little; finalists go first.
        smallest = 0.3 if num_finalists > 1 else 0.0
        factor = 1.0
        while factor > smallest and max(lengths) * factor > MIN_STEPS:
            factor *= STEP
            rungs = tuple(
                replace(rung, num_steps=max(MIN_STEPS, int(length * factor)))
                for rung, length in zip(schedule.rungs, lengths, strict=True)
            )
            yield replace(shrunk, rungs=rungs)
