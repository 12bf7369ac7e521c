"""The student learns from its own moving average."""

from __future__ import annotations

import torch
from torch import nn

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.ema import Ema
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import batch, net, timed


def test_contracts() -> None:
    check_scheme(
        lambda: Ema(net(4), {"cross_entropy": CrossEntropy(), "kd": KD()}),
        lambda step: batch(seed=step),
    )


def test_the_average_moves_once_a_step_after_the_student() -> None:
    scheme = Ema(net(4), {"cross_entropy": CrossEntropy()}, decay=0.8)
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    slow = [parameter.clone() for parameter in scheme.teacher.parameters()]
    for step in range(3):
        train_step(engine, scheme, [timed(step)] * 2)
        slow = [
            0.8 * before + 0.2 * now
            for before, now in zip(slow, scheme.student.parameters(), strict=True)
        ]
        for expected, parameter in zip(slow, scheme.teacher.parameters(), strict=True):
            assert torch.allclose(expected, parameter, atol=1e-6)


def test_a_plain_module_is_converted_to_a_net() -> None:
    scheme = Ema(nn.Linear(6, 5), {"kd": KD()})
    assert isinstance(scheme.export(), Net)
    assert torch.equal(scheme.student(batch())["logits"], scheme.teacher_outputs(batch())["logits"])
