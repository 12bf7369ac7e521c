"""Sequential halving over seeds: every training has all steps, and the better arms get more seeds.

Karnin et al., ICML 2013. It suits methods whose short trainings do not order them, and scores that
differ more between seeds than between methods.
"""

from __future__ import annotations

from instil.search.rounds import Rung, Schedule, describe_steps

SHARES = (1.0, 1 / 3)
"""Share of the candidates in each round."""
FINAL_SHARE = 1 / 6
"""Share of the candidates that are finalists."""
MIN_FINALISTS = 3
"""Smallest number of finalists, unless there are fewer candidates."""


def plan_seeds(
    num_candidates: int,
    num_references: int,
    full_steps: int,
    budget: int | None,
    num_seeds: int = 3,
) -> Schedule:
    """Plan rounds of trainings with all steps within a budget, which limits the candidates.

    Args:
        num_candidates: arms besides the reference arms.
        num_references: reference arms, which are part of every round.
        full_steps: optimizer steps of the recipe.
        budget: optimizer steps of all trainings of the student. None: no limit.
        num_seeds: seeds of the final trainings.

    Raises:
        ValueError: if the budget is smaller than the smallest search.

    Example:
        >>> schedule = plan_seeds(100, 4, 10, 600, num_seeds=1)
        >>> [rung.num_candidates for rung in schedule.rungs], schedule.num_finalists
        ([32, 11], 5)
        >>> schedule.total_steps
        600
    """
    # Without candidates, the reference arms are compared.
    for count in range(num_candidates, 0, -1) or (0,):
        # Not fewer methods than there are finalists.
        counts = [min(count, max(MIN_FINALISTS, round(share * count))) for share in SHARES]
        rungs = tuple(Rung(size, 1, full_steps) for size in counts)
        num_finalists = max(min(MIN_FINALISTS, count), round(FINAL_SHARE * count))
        schedule = Schedule(rungs, num_references, num_finalists, num_seeds, full_steps)
        if budget is None or schedule.total_steps <= budget:
            return schedule
    raise ValueError(
        f"budget: too small. Expected at least {describe_steps(schedule)} for one "
        f"candidate and {num_references} reference arms with {num_seeds} final seeds, got {budget}"
    )
