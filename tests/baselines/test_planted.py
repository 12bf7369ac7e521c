"""A baseline of a user's module works in recipe, result, report and command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil import catalogue
from instil.catalogue import plugins
from instil.cli import main
from tests.experiment.small import recipe, run_of

MODULE = '''
from instil import Card
from instil.baselines.bases import Baseline


class HalfSmoothedBaseline(Baseline):
    """Student alone, with cross entropy and smoothed labels."""

    card = Card("Half smoothed", use="Shows the effect of regularisation.")
    display_name = "Half smoothed"
    noun = "half smoothing"
    color = "#123456"

    @classmethod
    def label_objectives(cls, task):
        return ("cross_entropy", "label_smoothing")

    @classmethod
    def applies(cls, task):
        return task.kind == "single"
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the module; its methods are removed from the catalogue afterwards."""
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "half_smoothed_module.py").write_text(MODULE)
    return tmp_path


def test_a_planted_baseline_needs_no_further_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recipe(
        "imports=[half_smoothed_module]",
        "baselines=[alone, half_smoothed]",
        "train.epochs=1",
    )
    result = run_of(one, folder / "run")
    assert set(result["gains"]) == {"half_smoothed"}
    assert len(result["half_smoothed"]["accuracy"]["values"]) == 2
    assert result["labels"]["samples_seen"]["half_smoothed"] == 100
    page = (folder / "run" / "report.html").read_text()
    assert "Half smoothed" in page
    assert "#123456" in page
    assert "half_smoothed" in catalogue.names("baseline")
    with pytest.raises(SystemExit):
        main(["run", "--resume", str(folder / "run")])
    assert "half smoothed" in capsys.readouterr().out


def test_its_report_does_not_need_the_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe(
        "imports=[half_smoothed_module]", "baselines=[half_smoothed]", "train.epochs=1", "seeds=[0]"
    )
    run_of(one, folder / "run")
    monkeypatch.setattr(plugins, "imported", {})
    with pytest.raises(SystemExit):
        main(["report", str(folder / "run")])
    assert "Half smoothed" in (folder / "run" / "report.html").read_text()


def test_a_baseline_that_the_task_excludes_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"noise is undefined for .*Expected one of alone, "):
        run_of(recipe("baselines=[noise]"), folder / "run")
    assert not (folder / "run").exists()
