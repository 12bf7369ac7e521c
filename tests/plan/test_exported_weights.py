"""Runs that export averaged or best weights, and runs that end early."""

from __future__ import annotations

from pathlib import Path

from tests.experiment.small import lines, recipe, run_of

CHANGES = (
    "seeds=[0]",
    "baselines=[alone]",
    "train.epochs=6",
    "train.average=0.9",
    "train.keep=best",
    "train.early_stopping={patience: 1, min_delta: 0.02}",
)


def test_all_arms_have_the_same_rule_and_report_their_best_epoch(tmp_path: Path) -> None:
    outcome = run_of(recipe(*CHANGES), tmp_path / "run")
    assert outcome["training"] == {
        "average": 0.9,
        "keep": "best",
        "early_stopping": {"patience": 1, "min_delta": 0.02},
    }
    records = lines(tmp_path / "run")
    for arm in ("teacher", "alone", "distilled"):
        own = [record for record in records if record["arm"] == arm]
        accuracies = [record["validation"]["accuracy"] for record in own]
        last = own[-1]
        assert last["best"]["value"] == max(accuracies)
        assert last["best"]["epoch"] == accuracies.index(max(accuracies)) + 1
        assert last.get("stopped_early", False) == (len(own) < 6)
    assert any(record.get("stopped_early") for record in records)
