"""Final trainings that fail, and names that no search has."""

from __future__ import annotations

import pytest

from instil.search.arms import Arm
from instil.search.options import settings_from
from instil.search.outcome import failure_notes


def test_a_finalist_without_scores_is_named() -> None:
    arms = [Arm("dkd", "objective", False, {}), Arm("kd", "objective", True, {})]
    statuses = {"dkd": ["complete", "failed", "failed"], "kd": ["complete"] * 3}
    finals = [
        {"arm": name, "status": status} for name, values in statuses.items() for status in values
    ]
    assert failure_notes(arms, finals) == ["dkd is not compared: 2 of 3 final trainings failed"]


@pytest.mark.parametrize("option", ["over", "candidates", "students"])
def test_an_option_without_names_is_an_error(option: str) -> None:
    with pytest.raises(ValueError, match=f"--{option}: no name"):
        settings_from(None, **{option: " ,"})  # type: ignore[arg-type]
