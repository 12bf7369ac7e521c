"""Schedule of a search: arms, trials and steps of each round."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """One round of successive halving.

    Attributes:
        num_candidates: arms besides the reference arms.
        num_trials: trainings of every arm.
        num_steps: optimizer steps of a training.
    """

    num_candidates: int
    num_trials: int
    num_steps: int


@dataclass(frozen=True)
class Schedule:
    """Rounds of a search, and its final trainings.

    Attributes:
        rungs: the rounds.
        num_references: reference arms, which are part of every round.
        num_finalists: arms besides the references that are trained again with new seeds.
        num_seeds: new seeds.
        final_steps: optimizer steps of a final training.
        notes: sentences on what the budget changed.
        num_folds: trainings of every trial that is not final.
        num_refinements: largest number of students that join the last round and the finalists.
    """

    rungs: tuple[Rung, ...]
    num_references: int
    num_finalists: int
    num_seeds: int
    final_steps: int
    notes: tuple[str, ...] = ()
    num_folds: int = 1
    num_refinements: int = 0

    @property
    def search_steps(self) -> int:
        """Optimizer steps of all rounds."""
        steps = sum(self.num_trials(rung) * rung.num_steps for rung in self.rungs)
        return self.num_folds * (steps + self.num_refinements * self.final_steps)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all trainings of the student."""
        arms = self.num_finalists + self.num_refinements + self.num_references
        return self.search_steps + arms * self.num_seeds * self.final_steps

    def num_trials(self, rung: Rung) -> int:
        """Return the trainings of a round."""
        return (rung.num_candidates + self.num_references) * rung.num_trials

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schedule:
        """Build a schedule from plain data."""
        rungs = tuple(Rung(**rung) for rung in data["rungs"])
        return cls(**{**data, "rungs": rungs, "notes": tuple(data["notes"])})


def describe_steps(schedule: Schedule) -> str:
    """Return the steps of a schedule as text, also in trainings of the recipe's length.

    Example:
        >>> describe_steps(Schedule((Rung(2, 1, 5),), 1, 1, 1, 20))
        '55 optimizer steps (--runs 3)'
    """
    num_runs = math.ceil(schedule.total_steps / schedule.final_steps)
    return f"{schedule.total_steps} optimizer steps (--runs {num_runs})"


def describe_arms(num_arms: int, num_seeds: int) -> str:
    """Return the arms of a search and their final trainings as text.

    Args:
        num_arms: candidates and reference arms.
        num_seeds: seeds of the final trainings; 0 in the first phase of two.
    """
    seeds = f" with {_counted(num_seeds, 'final seed')}" if num_seeds else ""
    return f"{_counted(num_arms, 'arm')}{seeds}"


def shrinking_note(full: Schedule, smaller: Schedule, budget: int) -> str:
    """Return a sentence on a schedule that a budget has made smaller.

    Args:
        full: schedule without a limit.
        smaller: schedule within the budget.
        budget: optimizer steps.
    """

    def text(schedule: Schedule) -> str:
        rungs = [
            f"{rung.num_trials} x {rung.num_steps} steps for "
            f"{_counted(rung.num_candidates + schedule.num_references, 'arm')}"
            for rung in schedule.rungs
        ]
        return "; ".join([*rungs, *_finals(schedule)])

    return (
        f"The budget of {budget} steps shrinks the search to {text(smaller)}. Without a limit: "
        f"{text(full)} ({full.total_steps} steps)"
    )


def _finals(schedule: Schedule) -> list[str]:
    """Return the final trainings as text; the first phase of two has none."""
    if not schedule.num_seeds:
        return []
    counts = {"finalist": schedule.num_finalists, "reference arm": schedule.num_references}
    arms = [_counted(count, noun) for noun, count in counts.items() if count]
    return [f"{' and '.join(arms)} with {_counted(schedule.num_seeds, 'final seed')}"]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
