"""Views, keys of a moving average, and a queue."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.functional.crops import random_crops
from instil.objectives.features.simreg import SimReg, simreg_loss
from instil.schemes.offline.momentum_contrast import MomentumContrast, queue_contrast_loss
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def seeing(width: int = 3) -> Net:
    return Net(staged(width).model, taps={"embedding": "head:in"})


def scheme(**options: Any) -> MomentumContrast:
    torch.manual_seed(0)
    options = {"size": 24, "momentum": 0.5, "temperature": 0.3} | options
    return MomentumContrast(seeing(), Frozen(seeing(4)), {"simreg": SimReg(layers=0)}, **options)


def test_contracts() -> None:
    # The contrast rises while the queue is filled with the keys of one repeated batch.
    check_scheme(lambda: scheme(contrast=0.01), images)


def test_the_contrast_agrees_with_a_plain_loop() -> None:
    query, key, queue = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    queue = queue / queue.norm(dim=1, keepdim=True)
    units = [(q / q.norm(), k / k.norm()) for q, k in zip(query, key, strict=True)]
    values = []
    for q, k in units:
        powers = [math.exp(float(q @ other) / 0.3) for other in queue]
        own = math.exp(float(q @ k) / 0.3)
        values.append(-math.log(own / (own + sum(powers))))
    loss = queue_contrast_loss(query, key, queue, 0.3, "none")
    assert torch.allclose(loss, torch.tensor(values), rtol=1e-4)


def test_losses_are_those_of_the_views_and_the_keys_enter_the_queue() -> None:
    it = scheme(contrast=0.7)
    it.train().prepare(images())
    data = it.before_step(timed(3))
    views = random_crops(timed(3), 2, (0.2, 1.0), 0.4, False, stream="scheme.views")
    with torch.no_grad():
        for parameter in it.average.parameters():
            parameter.add_(0.1)
    (update,) = it.step(data)
    query = it.head(it.student({"image": views[:, 0]})["embedding"])
    target = it.teacher({"image": views[:, 0]})["embedding"]
    assert torch.allclose(update.losses["simreg"], simreg_loss(query, target), atol=1e-6)
    key = it.average_head.net.model(it.average({"image": views[:, 1]})["embedding"])
    expected = 0.7 * queue_contrast_loss(query, key, it.queue["key"], 0.3)
    assert torch.allclose(update.losses["contrast"], expected, atol=1e-6)
    assert not key.requires_grad
    it.after_step(update.state_updates)
    assert torch.allclose(it.queue["key"][:16], key / key.norm(dim=1, keepdim=True), atol=1e-6)


def test_both_averages_follow_the_student() -> None:
    it = scheme()
    it.train().prepare(images())
    with torch.no_grad():
        for part in (it.student, it.head):
            for parameter in part.parameters():
                parameter.add_(1.0)
    before = {name: value.clone() for name, value in it.state_dict().items()}
    (update,) = it.step(it.before_step(timed()))
    it.after_step(update.state_updates)
    for average, part in (("average", "student"), ("average_head", "head")):
        for name, value in getattr(it, part).named_parameters():
            name = name if part == "student" else f"model.{name}"
            old = before[f"{average}.net.{name}"]
            new = it.state_dict()[f"{average}.net.{name}"]
            assert torch.allclose(new, (old + value) / 2)


def test_other_networks_and_batches_are_refused() -> None:
    without = Net(staged(4).model)
    it = MomentumContrast(seeing(), Frozen(without), {"simreg": SimReg(layers=0)})
    with pytest.raises(ValueError, match="Expected 'embedding' in the outputs of student and"):
        it.prepare(images())
    with pytest.raises(ValueError, match="momentum_contrast crops images"):
        scheme().before_step({"x": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="teacher: momentum_contrast needs one"):
        MomentumContrast(seeing(), None, {})
