"""Schedules, and the error for an unknown name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.cards import at_progress, suggestion
from instil.core import Schedule

NUMBERS = st.floats(-1e6, 1e6)
SHARES = st.floats(0, 1)


@given(NUMBERS, NUMBERS, SHARES, SHARES, SHARES)
def test_stays_between_its_ends_and_reaches_them(
    start: float, end: float, one: float, two: float, progress: float
) -> None:
    after, until = sorted((one, two))
    schedule = Schedule(start, end, until, after)
    slack = 1e-9 * (1 + abs(start) + abs(end))
    assert min(start, end) - slack <= schedule.at(progress) <= max(start, end) + slack
    assert schedule.at(1.0) == end
    assert schedule.at(until) == end
    if after < until:
        assert schedule.at(0.0) == start
        assert schedule.at(after) == start


@given(NUMBERS, NUMBERS, SHARES, SHARES)
def test_moves_one_way(start: float, end: float, one: float, two: float) -> None:
    schedule, (early, late) = Schedule(start, end, until=0.7, after=0.2), sorted((one, two))
    moved = (schedule.at(late) - schedule.at(early)) * (1 if end >= start else -1)
    assert moved >= -1e-9 * (1 + abs(start) + abs(end))


def test_half_way() -> None:
    assert Schedule(1, 3, until=0.6, after=0.2).at(0.4) == pytest.approx(2)


@pytest.mark.parametrize(("after", "until"), [(0.5, 0.4), (-0.1, 1), (0, 1.1), (float("nan"), 1)])
def test_bad_arguments(after: float, until: float) -> None:
    with pytest.raises(ValueError, match="a schedule needs 0 <= after <= until <= 1, not after="):
        Schedule(0, 1, until, after)


def test_a_number_does_not_move() -> None:
    assert at_progress(2.5, {"progress": 0.5}) == 2.5
    assert at_progress(Schedule(0, 1), {"progress": 0.25}) == 0.25
    assert at_progress(Schedule(0, 1), {}) == 0


def test_suggestions_are_close_names_or_all_names_of_a_short_list() -> None:
    assert suggestion("temprature", ["alpha", "temperature"]) == " Did you mean temperature?"
    assert suggestion("kdd", ["kd", "dkd", "mkd"]) == " Did you mean kd, mkd or dkd?"
    assert suggestion("zzz", ["alpha", "beta"]) == " Expected one of alpha, beta."
    assert suggestion("zzz", [f"name{i}" for i in range(21)]) == ""
    assert suggestion("zzz", []) == ""
