"""Trainings that fail, and names that no search has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.search.arms import Arm
from instil.search.evidence import failure_notes
from instil.search.failures import MOST_ATTEMPTS, is_transient
from instil.search.options import settings_from
from instil.search.trainer import Trainer
from instil.search.trials import Trial
from instil.training.monitor import NotFiniteError
from tests.search.recipes import continue_search, search


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


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")
NOT_FINITE = NotFiniteError(3, "student/kd", float("nan"), [0])


def fail(monkeypatch: pytest.MonkeyPatch, arm: str, error: RuntimeError) -> list[Trial]:
    """Let the trainings of an arm fail; return the list of the trials that are trained."""
    trained: list[Trial] = []
    original = Trainer._trained

    def train(self: Trainer, trial: Trial, *arguments: Any) -> Any:
        trained.append(trial)
        if trial.arm == arm:
            raise error
        return original(self, trial, *arguments)

    monkeypatch.setattr(Trainer, "_trained", train)
    return trained


def statuses(result: dict[str, Any], arm: str) -> set[str]:
    return {trial["status"] for trial in result["trials"] if trial["arm"] == arm}


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NOT_FINITE], ids=["memory", "loss"])
def test_a_trial_that_lacked_memory_is_trained_again(
    error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail(patch, "dkd", error)
        result = search(tmp_path / "out", candidates=("dkd",), num_seeds=1)
    assert statuses(result, "dkd") == {"failed"}
    result = continue_search(tmp_path / "out")
    expected = "complete" if error is OUT_OF_MEMORY else "failed"
    assert statuses(result, "dkd") == {expected}


def test_the_attempts_of_a_trial_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fail(monkeypatch, "dkd", OUT_OF_MEMORY)
    search(tmp_path / "out", candidates=("dkd",), num_seeds=1)
    first = next(trial.key for trial in trained if trial.arm == "dkd")
    for _ in range(MOST_ATTEMPTS + 1):
        result = continue_search(tmp_path / "out")
    assert sum(trial.key == first for trial in trained) == MOST_ATTEMPTS
    assert statuses(result, "dkd") == {"failed"}


def test_transient_errors() -> None:
    lost = RuntimeError("the server")
    lost.__cause__ = ConnectionResetError("reset")
    assert is_transient(lost)
    assert is_transient(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert not is_transient(NOT_FINITE)
    assert not is_transient(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
