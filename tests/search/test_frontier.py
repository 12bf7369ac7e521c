"""Frontiers, hypervolumes, limits and the choice of a student."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from instil.search import student_outcome
from instil.search.frontier import frontier, hypervolume, order_by_front
from instil.search.limits import COSTS, parse_limits, parse_share, violation
from instil.search.student_outcome import choose_student, target_score


def points(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Random qualities and costs of twelve students."""
    generator = random.Random(seed)
    names = [f"s{index}" for index in range(12)]
    return (
        {name: generator.random() for name in names},
        {name: generator.uniform(1, 100) for name in names},
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_student_is_on_the_frontier_if_no_other_is_better_and_cheaper(seed: int) -> None:
    qualities, costs = points(seed)
    expected = {
        name
        for name in qualities
        if not any(
            qualities[other] > qualities[name] and costs[other] < costs[name] for other in qualities
        )
    }
    names = frontier(qualities, costs)
    assert set(names) == expected
    assert names == sorted(names, key=lambda name: costs[name])


@pytest.mark.parametrize("seed", range(3))
def test_the_hypervolume_is_that_of_optuna(seed: int) -> None:
    compute = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    np = pytest.importorskip("numpy")
    qualities, costs = points(seed)
    losses = np.array([[costs[name], -qualities[name]] for name in qualities])
    expected = compute(losses, np.array([100.0, 0.0])) / 100
    assert hypervolume(frontier(qualities, costs), qualities, costs, 100.0) == pytest.approx(
        expected
    )


def test_students_beyond_the_largest_cost_add_nothing() -> None:
    assert hypervolume(["a", "b"], {"a": 0.5, "b": 1.0}, {"a": 1.0, "b": 9.0}, 2.0) == 0.25


def test_the_test_data_choose_no_student_of_a_frontier() -> None:
    """Validation chooses the larger student, whose test score is lower."""

    def row(name: str, num_bytes: float, validation: float, test: float) -> dict[str, Any]:
        costs = dict.fromkeys(COSTS.values()) | {"bytes": num_bytes}
        scores = {"validation": {"mean": validation}, "test": {"values": [test]}}
        return {"name": name, **costs, **scores}

    rows = {one["name"]: one for one in (row("small", 10, 0.8, 0.8), row("large", 30, 0.9, 0.6))}
    study: Any = SimpleNamespace(
        higher_is_better=True,
        final_seeds=[1],
        state=SimpleNamespace(teacher_costs={"bytes": 40}),
    )
    facts = student_outcome._frontiers(study, rows, {"score": 1.0})["size"]
    assert facts["students"] == ["small", "large"]
    # Limits from 10 to 30 have the small student, those from 30 to 40 the large one.
    assert facts["hypervolume"]["mean"] == pytest.approx((20 * 0.8 + 10 * 0.6) / 40)


@pytest.mark.parametrize("seed", range(3))
def test_all_students_are_ordered_front_by_front(seed: int) -> None:
    qualities, costs = points(seed)
    order = order_by_front(qualities, costs)
    assert sorted(order) == sorted(qualities)
    front = frontier(qualities, costs)
    assert set(order[: len(front)]) == set(front)
    assert order[0] == max(qualities, key=lambda name: qualities[name])
    assert order[: len(front)] == sorted(front, key=lambda name: -qualities[name])


def test_limits_have_units() -> None:
    assert parse_limits(["memory=8MB"]) == {"memory": 8e6}
    assert parse_limits(["memory=.5gib"]) == {"memory": 2**29}
    assert violation({"memory_bytes": 9e6}, {"memory": 8e6}) == "memory 9 MB; the limit is 8 MB"
    limits = parse_limits(["latency=500us", "size=1.5 MB", "parameters=2M"])
    assert limits == {"latency": 0.5, "size": 1.5e6, "parameters": 2e6}
    assert violation({"latency_ms": 0.5, "bytes": 1e6, "parameters": 2_000_001}, limits) == (
        "parameters 2,000,001; the limit is 2,000,000"
    )
    assert violation({"latency_ms": 0.5, "bytes": 1e6}, limits) == ""
    with pytest.raises(ValueError, match="--limit: two limits of size"):
        parse_limits(["size=1B", "size=5MB"])
    for wrong in ("latency=5", "size=4 tb", "parameters=-3", "size=", "parameters=0k"):
        with pytest.raises(ValueError, match=r"--limit: '.*' is not a limit"):
            parse_limits([wrong])
    with pytest.raises(ValueError, match=r"--limit: unknown limit 'latencies'.*latency"):
        parse_limits(["latencies=5ms"])


def test_a_share_is_a_percentage_or_a_number() -> None:
    assert parse_share("99%") == parse_share("0.99") == 0.99
    for wrong in ("101%", "0", "all", "-5%"):
        with pytest.raises(ValueError, match="--keep: "):
            parse_share(wrong)


def rows(scores: dict[str, tuple[float, float, str]]) -> dict[str, Any]:
    """Rows with validation score, size and violated limit."""
    return {
        name: {
            "validation": {"mean": score},
            "bytes": size,
            "latency_ms": 1.0,
            "violation": violated,
        }
        for name, (score, size, violated) in scores.items()
    }


def test_the_smallest_student_that_meets_the_target_is_chosen() -> None:
    students = rows({"a": (0.95, 30, ""), "b": (0.91, 20, ""), "c": (0.89, 10, "")})
    assert choose_student(students, 0.9, True) == ("b", True)
    assert choose_student(students, 0.96, True) == ("a", False)
    assert choose_student(students, None, True) == ("a", False)
    assert choose_student(students, 0.9, False) == ("c", True)


def test_a_few_bytes_choose_no_student() -> None:
    students = rows({"a": (0.95, 30_402, ""), "b": (0.91, 30_400, ""), "c": (0.97, 31_000, "")})
    assert choose_student(students, 0.9, True) == ("a", True)
    students["b"]["validation"]["mean"] = 0.95
    students["b"]["latency_ms"] = 0.9
    assert choose_student(students, 0.9, True) == ("b", True)


def test_a_student_beyond_a_limit_is_not_chosen() -> None:
    students = rows({"a": (0.95, 30, ""), "b": (0.94, 20, "latency")})
    assert choose_student(students, 0.9, True) == ("a", True)
    # The file within the limits could not be evaluated: the share is not met within them.
    assert choose_student(rows({"b": (0.94, 20, "latency")}), 0.9, True) == ("b", False)


def test_a_student_whose_training_failed_is_the_last_one() -> None:
    qualities = {"small": -float("inf"), "good": 0.9, "worse": 0.8}
    order = order_by_front(qualities, {"small": 1.0, "good": 2.0, "worse": 3.0})
    assert order == ["good", "worse", "small"]


def test_an_error_may_rise_by_the_share_that_is_given_up() -> None:
    assert target_score(0.5, 0.9, True) == pytest.approx(0.45)
    assert target_score(0.5, 0.9, False) == pytest.approx(0.55)
    assert target_score(-0.5, 0.9, True) == pytest.approx(-0.55)
    assert target_score(None, 0.9, True) is None
