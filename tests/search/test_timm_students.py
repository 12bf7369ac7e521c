"""Models of timm as students of a search, trained and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instil.recipe import load
from instil.search.search import Settings, start
from tests.search.recipes import recipe, silent

pytestmark = pytest.mark.slow
SIZE = {"size": 32}


def test_models_of_timm_are_chosen_by_measured_costs(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("onnxruntime")
    own = recipe(
        teacher={"model": "timm:lcnet_100", "input": SIZE},
        student={"model": "timm:lcnet_050", "input": SIZE},
        train={"steps": 3, "optimizer": {"type": "adamw", "lr": 1e-2}},
        teacher_train={"steps": 3},
    )
    settings = Settings(
        over=("students",),
        students=("timm:lcnet_035", "timm:resnet18"),
        limits={"size": 4e6, "latency": 1000.0, "memory": 8e6},
        keep=0.01,
        num_seeds=1,
    )
    result = start(own, settings, tmp_path / "timm", silent())
    # A ResNet-18 has more parameters than the teacher.
    assert "parameters; the teacher has" in result["refused"]["resnet18"]
    costs: dict[str, Any] = {arm["name"]: arm["costs"] for arm in result["arms"]}
    assert set(costs) == {"recipe", "lcnet_035"}
    for name in ("bytes", "memory_bytes", "parameters"):
        assert costs["lcnet_035"][name] < costs["recipe"][name]
    for one in costs.values():
        assert one["runtime"] == "onnxruntime"
        assert 0 < one["latency_ms"] < 1000
    trained = {trial["arm"] for trial in result["trials"] if trial["status"] == "complete"}
    assert trained == set(costs)
    within = [row for row in result["finalists"] if not row["violation"]]
    winner = next(row for row in within if row["name"] == result["winner"])
    assert load(tmp_path / "timm" / "best.yaml").student.model.startswith("timm:lcnet_0")
    target = result["keep"]["target"]
    good = [row for row in within if row["validation"]["mean"] >= target]
    assert winner["bytes"] == min(row["bytes"] for row in good)
