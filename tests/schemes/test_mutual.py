"""Peers teach each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from instil.core import Net, Objectives
from instil.engine import Engine, Optimization
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.mutual import Mutual, averaged_logits
from instil.schemes.peers import detached
from instil.step import train_step
from instil.testing import check_scheme
from tests.nets import Body, batch, call, net, timed


@pytest.mark.parametrize("peers", [1, 2])
def test_contracts(peers: int) -> None:
    check_scheme(
        lambda: Mutual(net(4), [net(6 + i, i + 1) for i in range(peers)], {"cross_entropy": CrossEntropy(), "kd": KD()}),
        lambda step: batch(seed=step),
    )


def test_each_learns_from_the_mean_over_the_others_before_the_step() -> None:
    nets = [net(4), net(6, 1), net(8, 2)]
    scheme = Mutual(nets[0], nets[1:], {"kd": KD(temperature=1)})
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    with torch.no_grad():
        logits = [one(batch())["logits"].log_softmax(1) for one in nets]
    losses = train_step(engine, scheme, [timed()])
    for i, learner in enumerate(("student", "peer0", "peer1")):
        others = [F.kl_div(logits[i], other, reduction="batchmean", log_target=True) for other in logits[:i] + logits[i + 1 :]]
        assert torch.allclose(losses[f"{learner}/kd"], torch.stack(others).mean(), atol=1e-6)


def test_no_gradient_goes_into_the_one_that_teaches() -> None:
    scheme = Mutual(net(4), [net(6, 1)], {"kd": KD()})
    scheme.prepare(batch())
    update = next(iter(scheme.step(timed())))
    update.losses["kd"].backward()
    assert all(parameter.grad is None for parameter in scheme.peers.parameters())
    assert any(parameter.grad is not None for parameter in scheme.student.parameters())


def test_peers_of_different_widths_have_adapters_of_their_own() -> None:
    def tapped(width: int) -> Net:
        return Net(Body(width), call, {"features": ["stem"]})

    scheme = Mutual(tapped(4), [tapped(6)], {"fitnet": FitNet()})
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.01}))
    before = [parameter.clone() for parameter in scheme.peer_objectives.parameters()]
    assert len(before) == 2
    train_step(engine, scheme, [timed()])
    assert not any(torch.equal(a, b) for a, b in zip(before, scheme.peer_objectives.parameters(), strict=True))


def test_adapters_for_others_of_different_widths_are_refused() -> None:
    nets = [Net(Body(width), call, {"features": ["stem"]}) for width in (4, 6, 8)]
    with pytest.raises(ValueError, match="student: one set of adapters cannot fit others of different shapes"):
        Mutual(nets[0], nets[1:], {"fitnet": FitNet()}).prepare(batch())


def test_needs_a_peer() -> None:
    with pytest.raises(ValueError, match="mutual learning needs at least one peer"):
        Mutual(net(4), [], Objectives({"kd": KD()}))


def test_exports_the_student() -> None:
    student = net(4)
    assert Mutual(student, [net(6)], {"kd": KD()}).export() is student


def test_detached_cuts_all_there_is() -> None:
    x = torch.ones(2, requires_grad=True) * 2
    outputs = detached({"logits": x, "features": (x, (x, x))})
    assert not outputs["logits"].requires_grad
    assert not outputs["features"][1][0].requires_grad


def test_in_sequence_each_learns_from_what_the_others_say_after_their_update() -> None:
    scheme = Mutual(net(4), [net(6, 1), net(8, 2)], {"kd": KD(temperature=1)}, sequential=True)
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    nets = [scheme.student, *scheme.peers]
    steps = scheme.step(timed())
    for i in range(3):
        with torch.no_grad():
            logits = [one(batch())["logits"].log_softmax(1) for one in nets]
        update = next(steps)
        others = [F.kl_div(logits[i], other, reduction="batchmean", log_target=True) for other in logits[:i] + logits[i + 1 :]]
        assert torch.allclose(update.losses["kd"], torch.stack(others).mean(), atol=1e-6)
        engine.backward(update, {"kd": torch.tensor(1.0)}, last=True)
        engine.step(update.learner)


@pytest.mark.parametrize("options", [{"sequential": True}, {"others": "probabilities"}, {"others": "logits", "sequential": True}])
def test_contracts_with_options(options: dict[str, Any]) -> None:
    check_scheme(
        lambda: Mutual(net(4), [net(6, 1), net(8, 2)], {"cross_entropy": CrossEntropy(), "kd": KD()}, **options), lambda step: batch(seed=step)
    )


def test_the_others_together_are_one_teacher() -> None:
    nets = [net(4), net(6, 1), net(8, 2)]
    logits = [one(batch())["logits"] for one in nets]
    probability = torch.stack([one.softmax(1) for one in logits[1:]]).mean(0)
    assert torch.allclose(averaged_logits(logits[1:]).exp(), probability, atol=1e-6)
    assert torch.allclose(averaged_logits(logits[1:], "logits"), (logits[1] + logits[2]) / 2)
    scheme = Mutual(nets[0], nets[1:], {"kd": KD(temperature=1)}, others="probabilities")
    scheme.prepare(batch())
    update = next(iter(scheme.step(timed())))
    assert torch.allclose(update.losses["kd"], F.kl_div(logits[0].log_softmax(1), probability, reduction="batchmean"), atol=1e-6)
    fit = Mutual(net(4), [net(6)], {"fitnet": FitNet()}, others="logits")
    with pytest.raises(ValueError, match="FitNet needs features"):
        fit.prepare(batch())
