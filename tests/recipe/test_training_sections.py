"""The section ``train`` of a recipe and its training options."""

from __future__ import annotations

from typing import Any

import pytest

from instil.experiment.training_options import build_training
from instil.recipe.checking import parse_recipe, validation_errors
from instil.recipe.defaults import resolve_defaults
from instil.training.selection import EarlyStopping

BASE: dict[str, Any] = {
    "data": {"name": "digits"},
    "teacher": {"model": "cnn"},
    "student": {"model": "cnn"},
    "objectives": {"cross_entropy": {}, "kd": {}},
}


def recipe(**sections: Any) -> dict[str, Any]:
    return resolve_defaults(BASE | sections)


def test_average_is_that_of_the_student_and_inherited_by_the_teacher() -> None:
    parsed = parse_recipe(recipe(train={"average": 0.999}))
    assert build_training(parsed.train, 0).average == 0.999
    assert parsed.teacher_train is not None
    assert parsed.teacher_train.average == 0.999
    without = parse_recipe(recipe(train={"average": 0.999}, teacher_train={"average": None}))
    assert without.teacher_train is not None
    assert build_training(without.teacher_train, 0).average is None
    assert build_training(parse_recipe(recipe()).train, 0).average is None


def test_gradients_of_language_models_are_clipped() -> None:
    assert parse_recipe(recipe()).train.clip is None
    language = recipe(task={"name": "language"})
    assert language["train"]["clip"] == 1
    assert language["teacher_train"]["clip"] == 1
    assert recipe(task={"name": "language"}, train={"clip": None})["train"]["clip"] is None


@pytest.mark.parametrize("average", [0, 1, "high"])
def test_average_out_of_range_is_an_error_with_its_path(average: Any) -> None:
    errors = validation_errors(recipe(train={"average": average}))
    assert any(error.startswith("train.average: ") for error in errors), errors


def test_early_stopping_and_best_weights() -> None:
    section = {"keep": "best", "early_stopping": {"patience": 3}}
    training = build_training(parse_recipe(recipe(train=section)).train, 0)
    assert training.keep == "best"
    assert training.early_stopping == EarlyStopping(3, 0.0)
    assert build_training(parse_recipe(recipe()).train, 0).early_stopping is None


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"keep": "first"}, "train.keep: "),
        ({"early_stopping": {"patience": 0}}, "train.early_stopping.patience: "),
        ({"early_stopping": {"min_delta": -1}}, "train.early_stopping.min_delta: "),
        ({"early_stopping": {"patients": 3}}, "train.early_stopping.patients: "),
    ],
)
def test_wrong_selection_is_an_error_with_its_path(section: dict[str, Any], path: str) -> None:
    errors = validation_errors(recipe(train=section))
    assert any(error.startswith(path) for error in errors), errors


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("cosin", "no schedule named 'cosin'"),
        ({"step_size": 3}, "type is missing"),
        ({"type": "StepLR"}, "step_size is missing"),
        ({"type": "StepLR", "stepsize": 3}, "Did you mean step_size"),
        ({"type": "cosine", "T_max": 3}, "cosine has no options"),
        ({"type": "StepLR", "step_size": 3, "interval": "batch"}, "interval: Expected epoch"),
        ({"type": "StepLR", "step_size": 3, "length": 0}, "length: Expected a whole number"),
        ({"type": "StepLR", "step_size": 3, "length": 9, "interval": "step"}, "length: the op"),
        (3, ""),
    ],
)
def test_wrong_schedule_is_an_error_with_its_path(section: Any, message: str) -> None:
    errors = validation_errors(recipe(train={"schedule": section}))
    assert any(error.startswith("train.schedule") and message in error for error in errors), errors


def test_schedule_of_torch() -> None:
    section = {"type": "StepLR", "step_size": 10}
    parsed = parse_recipe(recipe(train={"epochs": 30, "schedule": section}))
    assert parsed.train.schedule == section
    for num_steps in (None, 60):
        training = build_training(parsed.train, 0, num_steps)
        rates = [training.learning_rate(1.0, share, 60) for share in (0.1, 0.4, 0.9)]
        assert rates == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("section", ["constant", {"type": "constant"}])
def test_schedule_of_the_package_with_and_without_type(section: Any) -> None:
    parsed = parse_recipe(recipe(train={"schedule": section}))
    assert build_training(parsed.train, 0).schedule == "constant"


def test_a_training_in_steps_may_have_a_schedule_in_epochs() -> None:
    section = {"type": "StepLR", "step_size": 10, "interval": "epoch", "length": 30}
    parsed = parse_recipe(recipe(train={"steps": 60, "schedule": section}))
    training = build_training(parsed.train, 0)
    rates = [training.learning_rate(1.0, share, 60) for share in (0.1, 0.4, 0.9)]
    assert rates == pytest.approx([1.0, 0.1, 0.01])


def test_schedule_in_epochs_needs_epochs() -> None:
    schedule = {"type": "StepLR", "step_size": 10, "interval": "epoch"}
    errors = validation_errors(recipe(train={"steps": 30, "schedule": schedule}))
    assert any("schedule.interval: epoch needs epochs" in error for error in errors), errors
