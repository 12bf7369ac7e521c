"""SimCC against sums that are written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.labels.simcc import SimCC, simcc_loss


def cross_entropy(logits: Tensor, position: float, size: float, sigma: float) -> float:
    bins = len(logits)
    centres = [(index + 0.5) * size / bins for index in range(bins)]
    density = [math.exp(-((centre - position) ** 2) / (2 * sigma**2)) for centre in centres]
    log_p = logits.log_softmax(0).tolist()
    return -sum(q * p for q, p in zip(density, log_p, strict=True)) / sum(density)


def test_equals_the_formula() -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
    target = torch.tensor([0.3, 5.0, 9.7]).double()
    values = simcc_loss(logits, target, 10.0, 1.5, "none")
    expected = [cross_entropy(logits[i], float(target[i]), 10.0, 1.5) for i in range(3)]
    assert values.tolist() == pytest.approx(expected)


def test_known_keypoints_of_an_image_are_averaged() -> None:
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(2, 3, 8, generator=generator)
    rows = torch.randn(2, 3, 6, generator=generator)
    columns[0, 2] = torch.nan
    columns.requires_grad_()
    label = torch.tensor([[[1.0, 2.0], [7.0, 5.0], [1.0, 1.0]], [[-100.0, -100.0]] * 3])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    batch = {"label": label, "valid": valid, "image_size": torch.tensor([[8.0, 6.0]] * 2)}
    outputs = {"x_logits": columns, "y_logits": rows}
    update = Objectives({"it": SimCC(sigma=0.7)})(outputs, {}, batch)
    total = 0.0
    for keypoint in range(2):
        x, y = label[0, keypoint].tolist()
        total += cross_entropy(columns[0, keypoint].detach(), x, 8.0, 0.7)
        total += cross_entropy(rows[0, keypoint], y, 6.0, 0.7)
    assert update.losses["it"].item() == pytest.approx(total / 2, rel=1e-5)
    update.losses["it"].backward()
    assert columns.grad is not None
    assert columns.grad.isfinite().all()
    assert (columns.grad[0, :2] != 0).all()
