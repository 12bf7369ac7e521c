"""Arms that train the same student: different methods, whose losses are equal in a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from instil.search.arms import Arm

TOLERANCE = 1e-5
"""Relative difference of metrics below which two trainings are the same, up to rounding."""


def find_duplicates(
    results: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> dict[str, list[str]]:
    """Find arms of a round whose trainings gave the same student.

    Args:
        results: results of the round, one training for each arm, all with the same seed.
        order: names of the arms; of equal ones the first stays.

    Returns:
        Names of the later arms by that of the first one.

    Example:
        >>> row = {"status": "complete", "curve": [[1, 0.5], [2, 0.6]], "validation": {"loss": 1.0}}
        >>> find_duplicates([{"arm": name, **row} for name in ("kd", "top_k")], ["kd", "top_k"])
        {'kd': ['top_k']}
    """
    by_arm = {result["arm"]: result for result in results}
    duplicates: dict[str, list[str]] = {}
    distinct: list[str] = []
    for name in order:
        if name not in by_arm:
            continue
        first = next((one for one in distinct if _is_same(by_arm[one], by_arm[name])), None)
        if first is None:
            distinct.append(name)
        else:
            duplicates.setdefault(first, []).append(name)
    return duplicates


def duplicate_candidates(
    results: Sequence[Mapping[str, Any]], arms: Sequence[Arm]
) -> dict[str, list[str]]:
    """Find the candidates of a round that train the same student as another arm.

    Reference arms are part of all rounds, so that a candidate leaves instead. A method that equals
    a baseline does not act yet, since its loss rises later: it stays.

    Args:
        results: results of the round.
        arms: arms of the round.

    Returns:
        Names of the candidates by that of the arm that stays.
    """
    order = sorted(arms, key=lambda arm: not arm.is_reference)
    baselines = {arm.name for arm in arms if arm.kind == "baseline"}
    duplicates = find_duplicates(results, [arm.name for arm in order])
    return {first: names for first, names in duplicates.items() if first not in baselines}


def _is_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two trainings have the same scores at all steps and the same final metrics."""
    if first["status"] != "complete" or second["status"] != "complete":
        return False
    scores = [score for _, score in first["curve"]]
    # A score that never changes is that of students that have not begun to learn.
    if len(set(scores)) < 2:
        return False
    metrics = first["validation"]
    others = second["validation"]
    return (
        _are_close(scores, [score for _, score in second["curve"]])
        and metrics.keys() == others.keys()
        and _are_close(list(metrics.values()), [others[name] for name in metrics])
    )


def _are_close(first: Sequence[float], second: Sequence[float]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for one, other in zip(first, second, strict=True)
    )
