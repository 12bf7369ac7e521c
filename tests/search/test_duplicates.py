"""Methods that train the same student, and the trainings that choose among the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instil.search.duplicates import find_duplicates
from tests.search.recipes import search


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Result of a search whose candidates have two equal losses."""
    folder: Path = tmp_path_factory.mktemp("searches") / "equal"
    names = ("dist", "dkd", "gold", "jsd", "nkd", "previous_epoch")
    return search(folder, candidates=names, num_seeds=1)


def test_an_equal_method_leaves_after_the_first_round(outcome: dict[str, Any]) -> None:
    assert outcome["notes"] == ["jsd left after round 1: the same student as gold"]
    rounds = {trial["round"] for trial in outcome["trials"] if trial["arm"] == "jsd"}
    assert rounds == {0}


def test_a_method_that_begins_later_stays(outcome: dict[str, Any]) -> None:
    first = {trial["arm"]: trial for trial in outcome["trials"] if trial["round"] == 0}
    # Its teacher is the student of the previous epoch, which the first one does not have.
    assert first["previous_epoch"]["validation"] == first["alone"]["validation"]


def test_trainings_with_all_steps_count_as_seeds(outcome: dict[str, Any]) -> None:
    steps = outcome["schedule"]["final_steps"]
    for finalist in outcome["finalists"]:
        scores = [
            trial["validation"]["accuracy"]
            for trial in outcome["trials"]
            if trial["arm"] == finalist["name"] and trial["num_steps"] == steps
        ]
        assert len(scores) == 2
        assert sorted(finalist["validation"]["values"]) == sorted(scores)
        assert len(finalist["test"]["values"]) == 1


def row(name: str, *scores: float, **changes: Any) -> dict[str, Any]:
    """Result of a training with these scores."""
    curve = [[step, score] for step, score in enumerate(scores)]
    metrics = {"accuracy": scores[-1], "loss": 1.0}
    return {"arm": name, "status": "complete", "curve": curve, "validation": metrics, **changes}


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (row("b", 0.5, 0.6), {"a": ["b"]}),
        (row("b", 0.5, 0.6 + 1e-7), {"a": ["b"]}),
        (row("b", 0.4, 0.6), {}),
        (row("b", 0.5, 0.6, validation={"accuracy": 0.6, "loss": 1.01}), {}),
        (row("b", 0.5, 0.6, validation={"accuracy": 0.6}), {}),
        (row("b", 0.5, 0.6, status="failed"), {}),
    ],
)
def test_only_equal_metrics_are_equal(
    second: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    assert find_duplicates([second, row("a", 0.5, 0.6)], ["a", "b", "missing"]) == expected


def test_students_that_have_not_begun_to_learn_stay() -> None:
    assert find_duplicates([row("a", 0.1, 0.1), row("b", 0.1, 0.1)], ["a", "b"]) == {}
