"""A critic and a student that fools it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial import Adversarial
from instil.step import train_step
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.nets import Body, batch, call, net, timed


@pytest.mark.parametrize("role", ["logits", "embedding"])
def test_contracts(role: str) -> None:
    check_scheme(lambda: Adversarial(net(8), Frozen(net(8, 1)), {"kd": KD()}, role=role), lambda step: batch(seed=step))


def test_both_losses_are_those_of_the_paper() -> None:
    student, teacher, critic = net(4), net(8, 1), nn.Linear(5, 1)
    scheme = Adversarial(student, Frozen(teacher), {"cross_entropy": CrossEntropy()}, critic, weight=0.3)
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    with torch.no_grad():
        fake, real = student(batch())["logits"], teacher(batch())["logits"]
        wanted = F.binary_cross_entropy_with_logits(critic(real), torch.ones(16, 1)) + F.binary_cross_entropy_with_logits(
            critic(fake), torch.zeros(16, 1)
        )
    losses = train_step(engine, scheme, [timed()])
    assert torch.allclose(losses["critic/critic"], wanted, atol=1e-6)
    with torch.no_grad():  # the student faces the critic as it is after its update
        fooled = 0.3 * F.binary_cross_entropy_with_logits(critic(fake), torch.ones(16, 1))
    assert torch.allclose(losses["student/fool"], fooled, atol=1e-6)


def test_items_that_are_not_valid_do_not_count() -> None:
    valid = torch.arange(16) < 10
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batch())
    whole, part = timed() | {"valid": valid}, {key: value[:10] if value.ndim else value for key, value in timed().items()}
    assert {float(count) for count in scheme.counts(whole).values()} == {10.0}
    for a, b in zip(scheme.step(whole), scheme.step(part), strict=True):
        for name in a.losses:
            assert torch.allclose(a.losses[name], b.losses[name], atol=1e-6)


def test_the_critic_reads_a_role_that_no_objective_reads() -> None:
    def tapped(seed: int) -> Net:
        inner = net(6, seed)
        return Net(inner.model, inner.call, {"features": ["stem"]})

    scheme = Adversarial(tapped(0), Frozen(tapped(1)), {"fitnet": FitNet()})
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization())
    assert set(train_step(engine, scheme, [timed()])) == {"critic/critic", "student/fitnet", "student/fool"}


def test_a_role_that_is_not_there_and_widths_that_differ() -> None:
    with pytest.raises(ValueError, match=r"scheme\.role: the critic reads 'tokens' of the student, which gives logits, embedding"):
        Adversarial(net(4), Frozen(net(8)), {"kd": KD()}, role="tokens").prepare(batch())
    with pytest.raises(ValueError, match=r"scheme\.role: the critic reads 'logits' of the teacher, which gives nothing"):
        Adversarial(net(4), None, {"cross_entropy": CrossEntropy()}).prepare(batch())
    with pytest.raises(ValueError, match=r"scheme\.role: 'embedding' has width 4 in the student and 8 in the teacher"):
        Adversarial(net(4), Frozen(net(8)), {"kd": KD()}, role="embedding").prepare(batch())


def test_the_critic_is_not_shipped() -> None:
    student = Net(Body(), call)
    assert Adversarial(student, Frozen(net(8)), {"kd": KD()}).export() is student
