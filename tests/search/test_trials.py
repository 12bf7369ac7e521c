"""Recipes of trials: their learning rates are those of the recipe of the search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.experiment.training_options import build_training
from instil.files.json_files import write_json
from instil.plan.run import run
from instil.recipe import build, stages
from instil.recipe.sections import Recipe
from instil.search.arms import RATE_FACTOR, base_data, own_arm
from instil.search.locked_test import FINALISTS
from instil.search.outcome import count_steps
from instil.search.trainer import Trainer
from instil.search.trials import make_trial
from instil.training.monitor import LossMonitor, NotFiniteError
from tests.search.recipes import recipe, silent

EPOCHS = 6
TEACHER: dict[str, Any] = {"epochs": 1, "schedule": "cosine"}


def trial_recipe(own: Recipe, num_steps: int, factor: float = 1.0) -> Recipe:
    params = {RATE_FACTOR: factor}
    return build(make_trial(base_data(own), own_arm(), params, -1, num_steps, 0, "").recipe)


def rates(own: Recipe, num_steps: int) -> list[float]:
    training = build_training(own.train, 0)
    shares = [index / 24 for index in range(25)]
    return [training.learning_rate(own.train.optimizer.lr, one, num_steps) for one in shares]


@pytest.mark.parametrize(
    "schedule",
    [
        "cosine",
        {"type": "StepLR", "step_size": 2},
        {"type": "MultiStepLR", "milestones": [3, 5], "interval": "epoch"},
        {"type": "ExponentialLR", "gamma": 0.5},
        {"type": "OneCycleLR", "max_lr": 0.1},
        {"type": "StepLR", "step_size": 30, "interval": "step"},
    ],
)
def test_schedules_of_trials_count_the_epochs_of_the_recipe(schedule: Any) -> None:
    own = recipe(train={"epochs": EPOCHS, "schedule": schedule}, teacher_train=TEACHER)
    trial = trial_recipe(own, 90)
    assert (trial.train.epochs, trial.train.steps) == (None, 90)
    assert rates(trial, 90) == pytest.approx(rates(own, 90))
    is_in_steps = isinstance(schedule, dict) and schedule.get("interval") == "step"
    if not is_in_steps:
        # A short trial goes through the whole schedule.
        assert rates(trial_recipe(own, 12), 12) == pytest.approx(rates(own, 90))


@pytest.mark.parametrize("schedule", ["constant", {"type": "OneCycleLR", "max_lr": 0.1}])
def test_the_factor_of_the_learning_rate_changes_every_schedule(schedule: Any) -> None:
    own = recipe(train={"epochs": EPOCHS, "schedule": schedule}, teacher_train=TEACHER)
    expected = [2 * rate for rate in rates(own, 90)]
    assert rates(trial_recipe(own, 90, 2.0), 90) == pytest.approx(expected)


@pytest.mark.parametrize(
    "train",
    [
        {"schedule": {"type": "StepLR", "step_size": 2}},
        {"keep": "best"},
        {"keep": "best", "evaluate_every": 2},
        {"early_stopping": {"patience": 1, "min_delta": 0.2}},
        {"keep": "best", "epochs": None, "steps": 90, "evaluate_steps": 7},
        {"keep": "best", "epochs": None, "steps": 90},
    ],
)
def test_a_final_trial_has_the_student_of_a_run(train: dict[str, Any], tmp_path: Path) -> None:
    """All that the recipe sets for a training: its schedule, evaluations and choice of weights."""
    # A large learning rate, whose best weights are not the last ones.
    optimizer = {"type": "adamw", "lr": 0.1}
    own = recipe(
        train={"epochs": EPOCHS, "optimizer": optimizer, **train},
        teacher_train=TEACHER,
        seeds=[5],
        baselines=[],
        export=False,
    )
    run(own, tmp_path / "run", None, silent())
    expected = json.loads((tmp_path / "run/result.json").read_text())["distilled"]
    trainer = Trainer(Experiment.from_recipe(own), tmp_path / "search")
    (tmp_path / "search").mkdir()
    write_json(tmp_path / "search" / FINALISTS, {})
    result = trainer.train(make_trial(base_data(own), own_arm(), {}, -1, 90, 5, ""))
    assert result["test"]["loss"] == pytest.approx(expected["loss"]["mean"], rel=1e-5)


@pytest.mark.parametrize(("num_folds", "steps_done"), [(1, 3), (2, 12)])
def test_a_failed_trial_counts_the_steps_that_it_did(
    num_folds: int, steps_done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last fold is not finite after three steps."""
    trainer = Trainer(Experiment.from_recipe(recipe()), tmp_path)
    trainer.train_teachers()
    trial = make_trial(base_data(recipe()), own_arm(), {}, 0, 9, 5, "", num_folds=num_folds)
    updates = []
    update = LossMonitor.update

    def fail(self: LossMonitor, losses: Any, step: int, batches: Any) -> None:
        update(self, losses, step, batches)
        updates.append(step)
        if len(updates) > steps_done:
            raise NotFiniteError(step, "student/kd", float("nan"), [0])

    monkeypatch.setattr(LossMonitor, "update", fail)
    result = trainer.train(trial)
    assert result["status"] == "failed"
    assert result["num_steps"] == 9
    assert count_steps([result], [own_arm()]) == steps_done
    # A trial of an earlier version has all steps that were planned.
    del result["steps_done"]
    assert count_steps([result], [own_arm()]) == 9


def test_rounds_of_pruning_divide_the_schedule() -> None:
    student = {"model": "teacher", "changes": {"prune": {"share": 0.5}}, "rounds": 2}
    train = {"epochs": EPOCHS + 1, "schedule": {"type": "StepLR", "step_size": 2}}
    own = recipe(student=student, train=train, teacher_train=TEACHER)
    trial = trial_recipe(own, 91)
    for stage, other in zip(stages(own), stages(trial), strict=True):
        assert rates(other, 45) == pytest.approx(rates(stage, 45))
