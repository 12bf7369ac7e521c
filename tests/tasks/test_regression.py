"""Regression: metrics compared with loops; errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.objectives.logits.regression_kd import RegressionKD
from instil.tasks.regression import Regression
from instil.teachers.frozen import Frozen
from tests.tasks.samples import images, reals


def fixed_net(outputs: Tensor) -> Net:
    return Net(nn.Identity(), lambda _, batch: {"logits": outputs[batch["index"]]})


def evaluate(outputs: Tensor, label: Tensor, teacher: Any = None) -> dict[str, float]:
    batch = {
        "image": torch.rand(len(label), 1, 2, 2),
        "label": label,
        "index": torch.arange(len(label)),
    }
    pieces = [
        {key: value[:3] for key, value in batch.items()},
        {key: value[3:] for key, value in batch.items()},
    ]
    return Regression().evaluate(fixed_net(outputs), pieces, teacher)[0]


def r2(outputs: list[float], label: list[float]) -> float:
    pairs = [(z, y) for z, y in zip(outputs, label, strict=True) if y == y and y != -100]
    middle = sum(y for _, y in pairs) / len(pairs)
    return 1 - sum((z - y) ** 2 for z, y in pairs) / sum((y - middle) ** 2 for _, y in pairs)


def test_metrics_count_labelled_items_only() -> None:
    label = reals()["label"]
    outputs, others = (
        torch.randn(12, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    metrics = evaluate(outputs, label, Frozen(fixed_net(others)))
    columns = list(zip(outputs.T.tolist(), label.T.tolist(), others.T.tolist(), strict=True))
    errors = [
        z - y
        for ours, labels, _ in columns
        for z, y in zip(ours, labels, strict=True)
        if y == y and y != -100
    ]
    assert len(errors) == 20
    assert metrics["r2"] == pytest.approx(sum(r2(ours, labels) for ours, labels, _ in columns) / 2)
    assert metrics["mae"] == pytest.approx(sum(map(abs, errors)) / 20)
    assert metrics["loss"] == pytest.approx(sum(error**2 for error in errors) / 20)
    assert metrics["agreement"] == pytest.approx(
        sum(r2(ours, teacher_outputs) for ours, _, teacher_outputs in columns) / 2
    )


def test_one_output() -> None:
    label = torch.arange(6).float()
    assert evaluate(label[:, None], label[:, None])["r2"] == 1
    assert evaluate(label[:, None].mean(0, keepdim=True).expand(6, 1), label[:, None])[
        "r2"
    ] == pytest.approx(0)


def test_data_without_labels_and_infinite_outputs_raise() -> None:
    with pytest.raises(ValueError, match="no output to evaluate on has two known labels"):
        evaluate(torch.zeros(6, 2), torch.full((6, 2), math.nan))
    with pytest.raises(ValueError, match="2 of 6 samples have outputs that are not finite"):
        evaluate(
            torch.zeros(6, 2).index_fill_(0, torch.tensor([1, 4]), math.inf), torch.zeros(6, 2)
        )


def test_losses_of_classes_raise() -> None:
    task = Regression()
    task.check({"regression_kd": RegressionKD(), "logit_mse": LogitMSE(), "fitnet": FitNet()})
    for objective in (KD(), CrossEntropy()):
        with pytest.raises(ValueError, match="is undefined for real-valued regression"):
            task.check({"it": objective})


def test_data_of_other_tasks_raise() -> None:
    with pytest.raises(
        ValueError, match=r"needs real labels \(N, D\); these are torch.int64 of the shape \(12,\)"
    ):
        Regression().check_data(images())
    with pytest.raises(ValueError, match="labels are real, not 'single'"):
        Regression("single")
