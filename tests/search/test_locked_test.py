"""The test split cannot be read before the finalists of a search are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.plan.evaluation import Evaluator
from instil.search.locked_test import FINALISTS, LockedTestError, TestLock
from instil.search.trainer import Trainer
from tests.search.recipes import recipe, search


def test_every_use_of_the_locked_split_raises(tmp_path: Path) -> None:
    lock = TestLock(Experiment.from_recipe(recipe()), tmp_path)
    for experiment in (lock.experiment, *lock.experiment.stages):
        for use in (len, iter, lambda samples: samples[0], lambda samples: samples.label):
            with pytest.raises(LockedTestError, match="read before the finalists"):
                use(experiment.splits.test)
        assert len(experiment.splits.validation) > 0
    with pytest.raises(LockedTestError):
        lock.open()
    with pytest.raises(LockedTestError):
        Trainer(Experiment.from_recipe(recipe()), tmp_path).evaluate_teacher()
    (tmp_path / FINALISTS).write_text("{}")
    assert len(lock.open().splits.test) > 0


def test_a_trial_that_reads_the_test_split_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Trainer._scores

    def peek(self: Trainer, trial: Any, work: Any) -> dict[str, Any]:
        if not trial.is_final:
            loader = self.experiment.loader(self.experiment.splits.test, shuffle=False)
            Evaluator(self.experiment).task.measure(None, loader)
        return scores(self, trial, work)

    monkeypatch.setattr(Trainer, "_scores", peek)
    with pytest.raises(LockedTestError):
        search(tmp_path / "peek")
    assert not (tmp_path / "peek" / FINALISTS).exists()


def test_a_final_training_reads_it(tmp_path: Path) -> None:
    result = search(tmp_path / "search", candidates=("dkd",), num_seeds=1)
    for trial in result["trials"]:
        assert ("test" in trial) == (trial["round"] < 0)
