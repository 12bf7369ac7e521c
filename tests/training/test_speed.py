from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.engine import Engine
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training import speed
from instil.training.fit import Training, fit
from instil.training.speed import Speed, operations_per_token, peak_operations


def clocked(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    """Let the clock of ``speed`` show these times, one after the other."""
    shown = iter(times)
    monkeypatch.setattr(time, "perf_counter", lambda: next(shown))


def texts(depth: int) -> Net:
    return Net(causal_transformer(vocabulary=11, length=8, width=8, depth=depth, heads=2))


def test_rates_leave_out_evaluations_and_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Speed(Engine("cpu"), Offline(texts(1), None, {"cross_entropy": CrossEntropy()}))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    # The third row is one that a process without further data repeats.
    valid = torch.tensor([[True], [True], [False]]) & (mask > 0)
    batch = {"input_ids": mask, "attention_mask": mask, "valid": valid}
    clocked(monkeypatch, 10.0, 11.0, 50.0, 51.0)
    measure.start()
    measure.count([batch, batch])
    measure.stop()
    measure.start()
    measure.stop()
    rates = measure.measured()
    assert rates["samples_per_second"] == 2.0
    assert rates["tokens_per_second"] == 6.0
    assert rates["memory"] > 1e7
    assert "mfu" not in rates
    assert set(measure.measured()) == {"memory"}


def test_images_have_no_tokens() -> None:
    student, teacher = nn.Linear(4, 3), Net(nn.Linear(4, 3))
    scheme = Offline(student, Frozen(teacher), {"kd": KD()})
    loader = [(torch.rand(8, 4),)] * 3
    result = fit(scheme, loader, Training(epochs=2, device="cpu"), names=("image",))
    for record in result.records:
        assert set(record["speed"]) == {"samples_per_second", "memory"}
        assert record["speed"]["samples_per_second"] > 0


def tied() -> nn.Sequential:
    """Network whose head is its embedding."""
    net = nn.Sequential(nn.Embedding(9, 2), nn.Linear(2, 8), nn.Linear(8, 2), nn.Linear(2, 9))
    head = net[3]
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(net[0].weight)  # type: ignore[arg-type]
    return net


def test_utilisation_of_a_device_with_a_published_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = tied(), tied()
    student[1].requires_grad_(False)
    scheme = Offline(student, Frozen(Net(teacher)), {"kd": KD()})
    operations = operations_per_token(scheme)
    # Layers of 24, 18 and 27 weights; the second and the third of the student are trained.
    assert operations == 4 * 24 + 6 * (18 + 27) + 2 * (24 + 18 + 27)
    monkeypatch.setattr(speed, "peak_operations", lambda device: 8.0 * operations)
    measure = Speed(Engine("cpu"), scheme)
    clocked(monkeypatch, 0.0, 2.0)
    measure.start()
    mask = torch.ones(2, 4)
    measure.count([{"attention_mask": mask, "valid": mask > 0}])
    measure.stop()
    assert measure.measured()["mfu"] == 0.5


def test_peak_of_a_device_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_operations(torch.device("cuda")) == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert peak_operations(torch.device("cuda")) == 312e12
    for unlisted in ("NVIDIA L40", "NVIDIA GeForce GT 710"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=unlisted: name)
        assert peak_operations(torch.device("cuda")) is None
    assert peak_operations(torch.device("cpu")) is None
