"""Experiment trackers."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil import distil
from instil.integrations import trackers

LOSS = "losses/student/kd"


def train(report: Any) -> list[float]:
    """Train for two epochs and return the loss of each record."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    loader = [(torch.randn(8, 3, 2, 2), torch.tensor([0, 1] * 4))]
    result = distil(teacher, student, loader, "kd", epochs=2, report=report, progress=False)
    return [dict(trackers.scalars(record))[LOSS] for record in result.records]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_losses_of_each_record(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = train(trackers.tensorboard(tmp_path))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars(LOSS)] == [1, 2]
    assert [event.value for event in events.Scalars(LOSS)] == pytest.approx(losses, rel=1e-6)
    assert "lr" in events.Tags()["scalars"]


def test_mlflow_has_the_losses_of_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("kd")
    with mlflow.start_run() as run:
        losses = train(trackers.mlflow())
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, LOSS)
    assert [entry.step for entry in history] == [1, 2]
    assert [entry.value for entry in history] == pytest.approx(losses)


def test_wandb_gets_the_losses_of_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[dict[str, float], int]] = []

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((values, step))

    def start(project: str, **options: Any) -> Run:
        assert (project, options) == ("kd", {"mode": "offline"})
        return Run()

    library = types.ModuleType("wandb")
    monkeypatch.setattr(library, "init", start, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", library)
    losses = train(trackers.wandb("kd", mode="offline"))
    assert [step for _, step in logged] == [1, 2]
    assert [values[LOSS] for values, _ in logged] == losses
