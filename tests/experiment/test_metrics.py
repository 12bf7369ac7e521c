"""Metrics that a recipe adds: package metrics, a user's metric, headline and direction."""

from __future__ import annotations

import io
import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from rich.console import Console

from instil import catalogue
from instil.catalogue import plugins
from instil.cli import summary_table
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe import RecipeError, load
from tests.experiment.small import recipe, run_of

MODULE = '''
from typing import Annotated

import torch
from torch import nn
from typing_extensions import Doc

from instil.core import Card
from instil.metrics.bases.class_metric import ClassMetric


class Regret(ClassMetric):
    """Mean of (1 - probability of the class) ** power."""

    card = Card("Regret", labels=("single",))
    higher_is_better = False
    is_fraction = False

    def __init__(self, power: Annotated[float, Doc("exponent")] = 1.0):
        self.power = power
        super().__init__()

    def reset(self):
        self.values = []

    def add(self, logits, label):
        probability = logits.softmax(1)[torch.arange(len(label)), label]
        self.values += (1 - probability).pow(self.power).tolist()

    def compute(self):
        return sum(self.values) / len(self.values)


def net(channels: int, size: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "regret_module.py").write_text(MODULE)
    return tmp_path


def test_a_users_metric_is_the_headline_with_its_direction(folder: Path) -> None:
    measured = recipe(
        "imports=[regret_module]",
        "metrics=[macro_f1, {top3: {type: top_k_accuracy, k: 3}}, negative_log_likelihood, regret]",
        "headline=regret",
        "baselines=[alone]",
    )
    result = run_of(measured, folder / "run")
    assert (result["headline"], result["higher_is_better"]) == ("regret", False)
    names = ["accuracy", "macro_f1", "top3", "negative_log_likelihood"]
    assert result["secondary"] == names
    for arm in ("teacher", "alone", "distilled"):
        row = {name: result[arm][name]["mean"] for name in (*names, "regret", "loss")}
        assert row["accuracy"] < row["top3"] <= 1
        assert row["negative_log_likelihood"] == pytest.approx(row["loss"], rel=1e-5)
    distilled, alone = (result[arm]["regret"]["values"] for arm in ("distilled", "alone"))
    gains = [control - treated for treated, control in zip(distilled, alone, strict=True)]
    assert result["gain"]["mean"] == pytest.approx(sum(gains) / len(gains))
    console = Console(record=True, width=160, file=io.StringIO())
    summary_table.show(result, console)
    text = console.export_text()
    assert "Lower regret is better" in text
    assert "top3" in text
    page = (folder / "run" / "report.html").read_text()
    assert "Negative log likelihood (lower is better)" in page
    assert "Macro F1" in page


def test_metrics_do_not_change_the_numbers_of_the_task(folder: Path) -> None:
    changes = ("seeds=[0]", "baselines=[]")
    plain = run_of(recipe(*changes), folder / "plain")
    measured = run_of(recipe(*changes, "metrics=[macro_f1]"), folder / "measured")
    own = plain["distilled"]
    assert {name: measured["distilled"][name] for name in own} == own
    assert set(measured["distilled"]) - set(own) == {"macro_f1"}


def test_an_entry_point_declares_a_metric(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    entry = EntryPoint("sorrow", "regret_module:Regret", plugins.METRICS)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [entry] if group == plugins.METRICS else []
    )
    plugins.installed.cache_clear()
    try:
        assert "sorrow" in catalogue.names("metric")
        experiment = Experiment.from_recipe(recipe("metrics={sorrow: {power: 2.0}}"))
        assert experiment.task.metrics["sorrow"].power == 2.0
    finally:
        plugins.installed.cache_clear()


ALONE = ["baselines=[alone]"]
ATTACKED = ["scheme={type: adversarial_training, epsilon: 0.1, step_size: 0.05, attack_steps: 1}"]


def test_the_headline_is_the_accuracy_under_attack_on_all_splits(folder: Path) -> None:
    measured = recipe(*ATTACKED, "teacher=null", "objectives.kd=null", "headline=pgd", *ALONE)
    result = run_of(measured, folder / "run")
    assert (result["headline"], result["higher_is_better"]) == ("pgd", True)
    assert result["secondary"] == ["accuracy"]
    for arm in ("alone", "distilled"):
        assert result[arm]["pgd"]["mean"] < result[arm]["accuracy"]["mean"] <= 1
        assert "fgsm" in result[arm]
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(0 <= json.loads(line)["validation"]["pgd"] <= 1 for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["metrics=[macro_f2]"], r"metrics\.macro_f2: No metric named 'macro_f2'\. Did you mean"),
        (["metrics={top_k_accuracy: {top: 3}}"], r"metrics\.top_k_accuracy\.top: unknown option"),
        (["metrics={top_k_accuracy: {k: 10}}"], r"metrics\.top_k_accuracy: k: 10 is too large"),
        (["metrics=[character_error_rate]"], r"undefined for labels of the kind 'single'"),
        (["headline=macro_f1"], r"headline: no metric of this recipe is named 'macro_f1'"),
        (["headline=pgd"], r"headline: no metric of this recipe is named 'pgd'"),
        ([*ATTACKED, "headline=pdg"], r"Expected one of accuracy, fgsm, pgd\. Did you mean pgd"),
        (["metrics={accuracy: {type: macro_f1}}"], r"metrics\.accuracy: the task has a metric"),
        (["metrics=[equal_error_rate]"], r"metrics\.equal_error_rate: the network has no output"),
    ],
)
def test_errors_come_before_training(folder: Path, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        doctor(recipe("seeds=[0]", "student=regret_module:net", *changes))


@pytest.mark.parametrize(
    ("name", "changes", "path"),
    [
        ("pose", ["metrics=[keypoint_average_recall]"], "metrics.keypoint_average_recall"),
        ("crosskd", ["task={name: detection, kind: boxes}"], "task"),
    ],
)
def test_a_missing_package_is_an_error_before_training(
    monkeypatch: pytest.MonkeyPatch, name: str, changes: list[str], path: str
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    message = rf'^{path}: the evaluation needs the package pycocotools: .*instil\[detection\]"$'
    with pytest.raises(RecipeError, match=message):
        Experiment.from_recipe(load(name, changes))
