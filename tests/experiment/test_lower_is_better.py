"""A user's task whose headline metric is better when it is lower."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from instil.catalogue import plugins
from instil.cli import summary_table
from tests.experiment.small import lines, recipe, run_of

MODULE = '''
from instil.core import Card
from instil.tasks.classification import Classification


class ErrorRate(Classification):
    """Classification that is measured by the share of wrong decisions."""

    card = Card("Classification by error rate")
    headline = "error"
    higher_is_better = False

    def evaluate(self, net, batches, teacher=None):
        metrics, details = super().evaluate(net, batches, teacher)
        return {"error": 1 - metrics["accuracy"], **metrics}, details
'''


def test_every_choice_and_sentence_follows_the_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "error_rate_module.py").write_text(MODULE)
    small = recipe(
        "imports=[error_rate_module]",
        "task=error_rate",
        "baselines=[alone]",
        "train.epochs=6",
    )
    result = run_of(small, tmp_path / "run")
    assert (result["headline"], result["higher_is_better"]) == ("error", False)
    distilled = result["distilled"]["error"]["values"]
    alone = result["alone"]["error"]["values"]
    gains = [control - treated for treated, control in zip(distilled, alone, strict=True)]
    assert result["gain"]["mean"] == pytest.approx(sum(gains) / len(gains))
    assert result["gain"]["mean"] != 0
    is_worse = result["teacher"]["error"]["mean"] > result["alone"]["error"]["mean"]
    assert ("the teacher is worse than the student alone" in result["warnings"]) == is_worse
    last = {}
    for line in lines(tmp_path / "run"):
        if line["arm"] == "distilled":
            last[line["seed"]] = line["validation"]["error"]
    assert last[result["exported_seed"]] == min(last.values())
    assert max(last.values()) > min(last.values())
    console = Console(record=True, width=120, file=io.StringIO())
    summary_table.show(result, console)
    assert "Lower error is better; a positive gain is a reduction of error." in (
        console.export_text()
    )
    assert "lower is better" in (tmp_path / "run" / "report.html").read_text()
