"""Correlations of signals with gains, on synthetic studies."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks import signals
from benchmarks.signals import Study

METHODS = ("dkd", "dist", "nkd", "rkd", "fitnet", "crd", "pkt", "vid")


def study(task: int, is_informative: bool) -> Study:
    """Study whose gains follow the cosines, or do not."""
    generator = random.Random(task)
    one = Study(f"study {task}", f"task {task}", "synthetic", {"entropy": task})
    for method in METHODS:
        cosine = generator.uniform(-1, 1)
        one.method_signals[method] = {"norm_ratio": 1.0 + generator.random(), "cosine": cosine}
        one.gains[method] = cosine if is_informative else generator.random()
    one.gains["kd"] = 0.1 * task
    return one


def test_signals_that_predict_the_gain() -> None:
    studies = [study(task, is_informative=True) for task in range(6)]
    within = signals.method_correlations(studies)["cosine"]
    assert within["value"] == pytest.approx(1)
    assert within["tasks"] == 6
    entropy = signals.task_correlations(studies, "kd")["entropy"]
    assert entropy["value"] == pytest.approx(1)
    assert entropy["interval"] == pytest.approx([1, 1])
    error = signals.leave_one_task_out(studies, ("signals",))
    assert error["correlation"] > 0.9
    assert error["best_in_half"] == 1
    assert error["regret_of_half"] < 1e-9 < error["random_regret"]


def test_signals_that_do_not_predict_the_gain() -> None:
    studies = [study(task, is_informative=False) for task in range(6)]
    within = signals.method_correlations(studies)["cosine"]
    low, high = within["interval"]
    assert low < 0 < high
    assert signals.leave_one_task_out(studies, ("signals",))["correlation"] < 0.5


def test_few_tasks_have_no_interval() -> None:
    studies = [study(task, is_informative=True) for task in range(3)]
    assert signals.method_correlations(studies)["cosine"]["interval"] is None


def test_a_search_is_read(tmp_path: Path) -> None:
    def row(name: str, *values: float) -> dict[str, Any]:
        return {"name": name, "test": {"values": values}}

    content = {
        "name": "spoken_recipe",
        "higher_is_better": True,
        "finalists": [row("alone", 0.6, 0.6), row("kd", 0.7, 0.9), row("dkd", 0.5, 0.5)],
        "signals": {"label_agreement": 0.8, "label_agreement_train": 1.0, "level_similarities": []},
        "arms": [{"name": "dkd", "signals": {"norm_ratio": 2.0, "cosine": 0.5, "num_batches": 3}}],
    }
    (tmp_path / "search.json").write_text(json.dumps(content))
    (one,) = signals.read(tmp_path)
    assert (one.name, one.methods) == ("spoken", ["kd", "dkd"])
    assert one.gains == pytest.approx({"kd": 0.5, "dkd": -0.25})
    assert one.signals["memorisation"] == pytest.approx(0.2)
    assert one.method_signals["dkd"]["cosine"] == 0.5


def test_the_results_in_the_repository_are_read() -> None:
    folder = Path(signals.__file__).parent
    studies = [*signals.read(folder / "methods.json"), *signals.read(folder / "defaults.json")]
    assert len(studies) > 40
    assert all("kd" in one.gains for one in studies if one.source.endswith("defaults.json"))


def test_a_random_half_has_the_expected_best_gain() -> None:
    assert signals._expected_best([3.0, 2.0, 1.0], 2) == pytest.approx((3 + 3 + 2) / 3)
