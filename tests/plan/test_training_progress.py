"""The number of trainings of a run, and the lines that a piped run prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from instil.experiment.experiment import Experiment
from instil.plan.plan import Plan
from instil.plan.run import run
from instil.plan.training_progress import trainings
from tests.experiment.small import recipe


def test_a_piped_run_names_every_training_and_counts_the_cached_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    one = recipe("train.epochs=1", "baselines=[alone]")
    before = trainings(Plan.compile(Experiment.from_recipe(one)))
    assert (before.teachers, before.cached, before.students, before.total) == (1, 0, 4, 5)
    stream = io.StringIO()
    run(one, tmp_path / "run", None, Console(file=stream, force_terminal=False))
    titles = [line.partition(",")[0].partition(" (")[0] for line in stream.getvalue().splitlines()]
    assert titles == ["teacher", "alone", "distilled", "alone", "distilled"]
    assert "distilled, seed 1 (5 of 5)" in stream.getvalue()
    after = trainings(Plan.compile(Experiment.from_recipe(one)))
    assert (after.teachers, after.cached, after.total) == (0, 1, 4)
