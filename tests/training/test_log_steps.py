"""Records every few steps: losses, learning rate and speed, without other results."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.integrations.trackers import scalars
from instil.training.fit import fit
from tests.experiment.small import lines, recipe, run_of
from tests.training.test_fit import batches, offline, timeless, training


def steps_of(**options: int) -> list[tuple[int, bool]]:
    """Return the steps of all records, and whether they have metrics."""
    result = fit(offline(), batches(5), training(**options), evaluate=lambda net: {"accuracy": 0.5})
    return [(record["step"], "validation" in record) for record in result.records]


def test_epochs_and_evaluations_keep_their_records() -> None:
    """A step has one record: at the end of an epoch it is that of the epoch."""
    assert steps_of(epochs=2) == [(5, True), (10, True)]
    assert steps_of(epochs=2, log_steps=2) == [
        (2, False),
        (4, False),
        (5, True),
        (6, False),
        (8, False),
        (10, True),
    ]
    assert steps_of(epochs=1, log_steps=2, evaluate_steps=4) == [(2, False), (4, True), (5, True)]
    assert steps_of(epochs=2, evaluate_every=2, log_steps=5) == [(5, False), (10, True)]


def test_the_mean_of_an_epoch_is_that_of_its_records() -> None:
    whole = fit(offline(), batches(4), training(epochs=1)).records
    halves = fit(offline(), batches(4), training(epochs=1, log_steps=2)).records
    assert [record["step"] for record in halves] == [2, 4]
    for name, mean in whole[0]["losses"].items():
        means = [record["losses"][name] for record in halves]
        assert sum(means) / 2 == pytest.approx(mean)
    assert timeless(whole[0])["lr"] == timeless(halves[-1])["lr"]


def test_a_recipe_writes_the_records_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = ("data.batch_size=25", "train.log_steps=15", "seeds=[0]", "baselines=[]")
    run_of(recipe(*changes), tmp_path / "run")
    records = [line for line in lines(tmp_path / "run") if line["arm"] == "distilled"]
    assert [record["step"] for record in records] == [15, 30, 40, 45, 60, 75, 80]
    for record in records:
        assert record["lr"] > 0 or record["step"] == 80
        assert record["losses"]
        assert record["speed"]["samples_per_second"] > 0
        assert record["speed"]["memory"] > 0
        assert {"losses/student/kd", "lr", "speed/samples_per_second"} <= dict(
            scalars(record)
        ).keys()
