"""Budgets and students that cannot suffice are refused before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.recipe.sections import Recipe
from instil.search.schedule import plan_schedule
from instil.search.search import Settings, start
from instil.search.trainer import Trainer
from tests.search.recipes import recipe


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch, own: Recipe, **settings: Any) -> str:
    """Message of a search that trains no teacher and writes no folder."""

    def train_teachers(self: Trainer) -> None:
        raise AssertionError("a teacher is trained")

    monkeypatch.setattr(Trainer, "train_teachers", train_teachers)
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match=r"^(budget: too small|--students: )") as caught:
        start(own, Settings(**{"num_seeds": 2, **settings}), folder / "out", console)
    assert not (folder / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "num_arms", "num_runs"),
    [
        # Four reference arms (the recipe is that of kd) and two methods.
        ({"candidates": ("dkd", "dist"), "max_steps": 20}, 6, 11),
        ({"candidates": ("dkd", "dist"), "max_runs": 9}, 6, 11),
        ({"candidates": ("dkd",), "max_steps": 20, "strategy": "seeds"}, 1, 20),
        # The students are copies of the teacher, which is not trained yet.
        ({"over": ("students",), "max_runs": 2}, 1, 3),
        ({"over": ("students", "methods"), "candidates": ("dkd",), "max_runs": 3}, 5, 11),
        (
            {"over": ("teachers",), "teachers": {"small": {"options": {"width": 8}}}}
            | {"max_runs": 1},
            5,
            9,
        ),
    ],
)
def test_a_budget_that_cannot_suffice_is_refused_before_the_teacher_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    num_arms: int,
    num_runs: int,
) -> None:
    message = refuse(tmp_path, monkeypatch, recipe(), **settings)
    assert f"(--runs {num_runs})" in message
    if settings.get("strategy") != "seeds":
        assert f"for {num_arms} arm" in message


def test_a_budget_for_the_fewest_arms_is_checked_after_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train_teachers", lambda self: exec("raise KeyError"))
    settings = Settings(candidates=("dkd", "dist"), num_seeds=2, max_steps=4 * 2 * 9 + 18 + 6)
    with pytest.raises(KeyError):
        start(recipe(), settings, tmp_path / "out", Console(file=io.StringIO()))


def test_students_that_do_not_exist_are_refused_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"over": ("students",), "students": ("networks:mlpp",)}
    message = refuse(tmp_path, monkeypatch, recipe(), **settings)
    assert "--students: none fits" in message
    assert "Did you mean mlp?" in message


def test_a_mistyped_family_of_students_has_the_closest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"over": ("students",), "students": ("netwrks",)}
    message = refuse(tmp_path, monkeypatch, recipe(), **settings)
    assert "--students: unknown student 'netwrks'" in message
    assert "Did you mean networks" in message


def test_the_note_on_a_budget_names_the_reference_arms() -> None:
    (note,) = plan_schedule(0, 4, 100, 1300, num_seeds=3).notes
    assert "for 4 arms; 4 reference arms with 3 final seeds. Without" in note
    (note,) = plan_schedule(9, 1, 100, 700, num_seeds=1).notes
    assert "3 finalists and 1 reference arm with 1 final seed" in note
    (note,) = plan_schedule(9, 0, 100, 200, num_seeds=0, num_finalists=3).notes
    assert "final" not in note


@pytest.mark.parametrize(
    "settings", [{"candidates": ("dkd",)}, {"over": ("students",)}], ids=("methods", "students")
)
def test_a_time_that_is_far_too_short_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    message = refuse(tmp_path, monkeypatch, recipe(), max_seconds=1e-3, **settings)
    assert "These are the steps of 2 times the budget, since a step takes 0." in message


def test_a_time_that_suffices_is_checked_after_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train_teachers", lambda self: exec("raise KeyError"))
    settings = Settings(candidates=("dkd",), num_seeds=2, max_seconds=3600)
    with pytest.raises(KeyError):
        start(recipe(), settings, tmp_path / "out", Console(file=io.StringIO()))
