"""Prior order of the candidates of a search, and its use in short rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from instil.cards.closest import did_you_mean
from instil.early_signals.gain_model import predicted_rank
from instil.search.arms import Arm
from instil.search.rounds import Schedule

PRIORS = ("auto", "none", "model")
"""Names of priors; other values are files of a model."""
SMALLEST_SHARE = 1 / 3
"""Smallest share of the candidates that a budget keeps."""

Plan = Callable[[Sequence[Arm]], Schedule]
"""Function that plans the rounds of some arms within the budget."""


def check_prior(prior: str) -> None:
    """Check the option ``prior`` of a search.

    Args:
        prior: one of ``PRIORS``, or the file of a model.

    Raises:
        ValueError: for another name, and for a file that does not exist.
    """
    if prior in PRIORS or Path(prior).is_file():
        return
    is_path = "." in prior or "/" in prior
    raise ValueError(
        f"--prior: {'no such file' if is_path else 'unknown name'} '{prior}'. Expected auto, none, "
        f"model or the file of a model.{'' if is_path else did_you_mean(prior, PRIORS)}"
    )


def order_by_model(arms: Sequence[Arm], model: Mapping[str, Any]) -> list[Arm]:
    """Return the candidates in the order of their predicted gain, before the reference arms.

    The recipe's own method is the first one: its place is not predicted.

    Args:
        arms: candidates and reference arms.
        model: result of ``read_gain_model``.
    """
    predicted = {}
    for arm in arms:
        if arm.kind in ("objective", "scheme"):
            signals = None if arm.signals is None else asdict(arm.signals)
            predicted[arm.name] = predicted_rank(arm.name, signals, model)
    return sorted(arms, key=lambda arm: (arm.is_reference, -predicted.get(arm.name, math.inf)))


def order_with_prior(arms: Sequence[Arm], scores: Mapping[str, float]) -> list[Arm]:
    """Return arms by the sum of their rank in a short round and their prior rank.

    A short training orders methods that act late at random. An arm without a score is last.

    Args:
        arms: arms, the best prior first.
        scores: score by name; higher is better.
    """
    by_score = sorted(arms, key=lambda arm: -scores[arm.name])
    ranks = {arm.name: rank for rank, arm in enumerate(by_score)}
    for rank, arm in enumerate(arms):
        ranks[arm.name] += rank
    return sorted(by_score, key=lambda arm: (scores[arm.name] == -math.inf, ranks[arm.name]))


def within_budget(arms: Sequence[Arm], plan: Plan) -> tuple[list[Arm], Schedule]:
    """Leave out the last candidates until the budget suffices for complete rounds.

    At least a third of the candidates take part; the rounds shrink if these are too many.

    Args:
        arms: candidates, the best first, and reference arms.
        plan: function that plans the rounds of some arms.

    Returns:
        Arms that take part, and their schedule with a note on those that are left out.

    Raises:
        ValueError: if the budget is smaller than the smallest search.
    """
    candidates = [arm for arm in arms if not arm.is_reference]
    smallest = max(1, math.ceil(SMALLEST_SHARE * len(candidates)))
    for size in range(len(candidates), smallest - 1, -1):
        chosen = _without(arms, candidates[size:])
        try:
            schedule = plan(chosen)
        except ValueError:
            # Fewer candidates may fit.
            if size == smallest:
                raise
            continue
        if not schedule.notes or size == smallest:
            return chosen, _with_note(schedule, candidates[size:])
    return list(arms), plan(arms)


def first_arms(arms: Sequence[Arm], schedule: Schedule) -> tuple[list[Arm], Schedule]:
    """Return the candidates of the first round and the reference arms, with their schedule.

    Args:
        arms: candidates, the best first, and reference arms.
        schedule: schedule whose first round may have fewer candidates.
    """
    candidates = [arm for arm in arms if not arm.is_reference]
    left_out = candidates[schedule.rungs[0].num_candidates :]
    return _without(arms, left_out), _with_note(schedule, left_out)


def _without(arms: Sequence[Arm], left_out: Sequence[Arm]) -> list[Arm]:
    return [arm for arm in arms if arm not in left_out]


def _with_note(schedule: Schedule, left_out: Sequence[Arm]) -> Schedule:
    if not left_out:
        return schedule
    names = ", ".join(arm.name for arm in left_out)
    note = f"The budget leaves out {len(left_out)} candidates, the last ones in order: {names}"
    return replace(schedule, notes=(note, *schedule.notes))
