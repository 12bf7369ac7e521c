"""Folds of the labelled samples for the score of a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.data.labels import few_labels
from instil.experiment.experiment import Experiment
from instil.search.folds import check_folds, fold_experiments
from instil.search.search import Settings
from tests.search.recipes import continue_search, recipe, search, without_times

NUM_FOLDS = 4


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment.from_recipe(recipe())


def test_folds_divide_the_labelled_samples(experiment: Experiment) -> None:
    own = experiment.recipe
    folds = fold_experiments(experiment, own, NUM_FOLDS)
    chosen = few_labels(experiment.splits.train, 100, own.seeds[0])
    held_out = [fold.splits.validation.index for fold in folds]
    assert sorted(torch.cat(held_out).tolist()) == sorted(chosen.index[chosen.has_label].tolist())
    for fold in folds:
        validation = fold.splits.validation
        assert len(validation) == 25
        assert validation.has_label.all()
        # Balanced over the ten classes.
        assert validation.label.bincount(minlength=10).tolist() == pytest.approx([2.5] * 10, abs=1)
        train = fold.train_data(own.seeds[0])
        assert int(train.has_label.sum()) == 75
        assert len(train) == len(experiment.splits.train) - 25
        assert not set(train.index.tolist()) & set(validation.index.tolist())
        assert fold.splits.test is experiment.splits.test
        assert fold.stages[0].splits.validation is validation


def test_all_labels_are_divided_without_a_number_of_labels() -> None:
    own = recipe(data={"name": "digits", "batch_size": 64})
    experiment = Experiment.from_recipe(own)
    folds = fold_experiments(experiment, own, 3)
    assert sum(len(fold.splits.validation) for fold in folds) == len(experiment.splits.train)


def test_too_many_folds_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    check_folds(experiment, 50)
    with pytest.raises(ValueError, match="--folds: 51 folds of 100 labelled samples"):
        check_folds(experiment, 51)
    with pytest.raises(ValueError, match="--folds: 90 folds of 100 labelled samples"):
        search(tmp_path / "none", num_folds=90)
    assert not (tmp_path / "none").exists()
    for settings in ({"strategy": "exhaustive"}, {"over": ("teachers",)}):
        with pytest.raises(ValueError, match="--folds: for rounds of trials"):
            Settings(num_folds=3, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_trial_has_the_mean_score_of_its_folds(tmp_path: Path) -> None:
    result = search(tmp_path / "folds", num_folds=3, num_seeds=1, candidates=("dkd",), max_runs=24)
    rounds = [trial for trial in result["trials"] if trial["round"] >= 0]
    finals = [trial for trial in result["trials"] if trial["round"] < 0]
    assert all(trial["num_folds"] == 3 for trial in rounds)
    assert not any("num_folds" in trial for trial in finals)
    assert {trial["arm"] for trial in rounds} == {arm["name"] for arm in result["arms"]}
    expected = sum(3 * trial["num_steps"] for trial in rounds)
    assert result["steps"] == expected + sum(trial["num_steps"] for trial in finals)
    assert result["steps"] <= 24 * 9
    # The mean over three folds and the validation split is no multiple of one split's share.
    assert all(0 < trial["score"] < 1 for trial in rounds)
    assert all(trial["curve"][-1][0] == trial["num_steps"] for trial in rounds)
    # A continued search reads the results of the folds.
    first = outcome(tmp_path / "folds")
    continue_search(tmp_path / "folds")
    assert without_times(outcome(tmp_path / "folds")) == without_times(first)


def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return content
