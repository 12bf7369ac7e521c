"""Regret of searches against an exhaustive search (``benchmarks/proof.py``)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

PROOF = Path(__file__).parents[1] / "benchmarks" / "proof.py"


@pytest.fixture(scope="module")
def proof() -> dict[str, Any]:
    """Functions of the benchmark."""
    return runpy.run_path(str(PROOF))


def everything(higher_is_better: bool = True) -> dict[str, Any]:
    """Result of an exhaustive search over three methods with three seeds."""
    scores = {"kd": [0.80, 0.82, 0.81], "dkd": [0.79, 0.83, 0.80], "alone": [0.60, 0.61, 0.62]}
    arms = {
        name: {"test": {"values": values, "mean": sum(values) / 3}}
        for name, values in scores.items()
    }
    return {"higher_is_better": higher_is_better, "steps": 1000, "arms": arms}


def trial(
    arm: str, index: int, score: float | None, steps: int = 50, **more: Any
) -> dict[str, Any]:
    return {
        "arm": arm,
        "round": index,
        "score": score,
        "num_steps": steps,
        "status": "complete" if score is not None else "failed",
        **more,
    }


def test_the_regret_is_the_distance_from_the_best_method(proof: dict[str, Any]) -> None:
    result = proof["regret"](everything(), "alone")
    assert result["best"] == "kd"
    assert result["regret"] == pytest.approx(0.20)
    assert not result["within_noise"]
    close = proof["regret"](everything(), "dkd")
    assert close["regret"] == pytest.approx(0.01 / 3)
    assert close["within_noise"]
    assert proof["regret"](everything(), "kd")["regret"] == 0


def test_the_direction_of_the_metric_decides(proof: dict[str, Any]) -> None:
    result = proof["regret"](everything(higher_is_better=False), "kd")
    assert result["best"] == "alone"
    assert result["regret"] == pytest.approx(0.20)


def test_the_curve_follows_the_best_method_of_the_latest_round(proof: dict[str, Any]) -> None:
    trials = [
        trial("alone", 0, 0.7),
        trial("dkd", 0, 0.9),
        trial("alone", 1, 0.95),
        trial("kd", -1, 0.1),
    ]
    curve = proof["regret_curve"](everything(), trials)
    assert curve == pytest.approx([0.20, 0.01 / 3, 0.20, 0.0])


def test_a_failed_trial_costs_but_does_not_lead(proof: dict[str, Any]) -> None:
    stopped = trial("dkd", 1, 0.99, status="stopped", curve=[[25, 0.99]])
    trials = [trial("kd", 0, None), trial("alone", 0, 0.5), stopped]
    curve = proof["regret_curve"](everything(), trials)
    assert curve[0] is None
    assert curve[1:] == pytest.approx([0.20, 0.20, 0.20])
