"""Losses, adapters and order of the updates of networks that teach each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instil.core import Net, Objectives
from instil.engine import Engine, Optimization
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.objectives.relations.crd import CRD
from instil.schemes.bases.peers import detach_outputs
from instil.schemes.online.mutual import Mutual, averaged_logits
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import Body, batch, call, net, timed


@pytest.mark.parametrize("peers", [1, 2])
def test_contracts(peers: int) -> None:
    check_scheme(
        lambda: Mutual(
            net(4),
            [net(6 + i, i + 1) for i in range(peers)],
            {"cross_entropy": CrossEntropy(), "kd": KD()},
        ),
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
        others = [
            F.kl_div(logits[i], other, reduction="batchmean", log_target=True)
            for other in logits[:i] + logits[i + 1 :]
        ]
        assert torch.allclose(losses[f"{learner}/kd"], torch.stack(others).mean(), atol=1e-6)


def test_no_gradient_reaches_the_network_that_teaches() -> None:
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
    assert not any(
        torch.equal(a, b) for a, b in zip(before, scheme.peer_objectives.parameters(), strict=True)
    )


def test_every_pair_of_nets_of_different_widths_has_adapters_of_its_own() -> None:
    def make_scheme() -> Mutual:
        torch.manual_seed(0)
        nets = [Net(Body(width), call, {"features": ["stem"]}) for width in (4, 6, 8)]
        return Mutual(nets[0], nets[1:], {"fitnet": FitNet()})

    scheme = make_scheme()
    scheme.prepare(batch())
    widths = [
        [tuple(next(one.parameters()).shape[:2]) for one in each]
        for _, each in scheme._learner_objectives()
    ]
    assert widths == [[(6, 4), (8, 4)], [(4, 6), (8, 6)], [(4, 8), (6, 8)]]
    student_outputs, *others = (net(batch()) for net in scheme._nets())
    _, each = next(iter(scheme._learner_objectives()))
    expected = torch.stack(
        [
            one["fitnet"](student_outputs, other, batch()).mean()
            for one, other in zip(each, others, strict=True)
        ]
    ).mean()
    assert torch.allclose(next(iter(scheme.step(timed()))).losses["fitnet"], expected)
    check_scheme(make_scheme, lambda step: batch(seed=step))


def test_rows_of_every_pair_come_back_to_their_own_memory() -> None:
    scheme = Mutual(
        net(4),
        [net(6, 1), net(8, 2)],
        {"crd": CRD(dim=4, negatives=2, size=16, memory="bank"), "kd": KD()},
    )
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    before = {name: value.clone() for name, value in scheme.named_buffers()}
    train_step(engine, scheme, [timed()])
    moved = {name for name, value in scheme.named_buffers() if not torch.equal(value, before[name])}
    assert len({name.rpartition(".crd.")[0] for name in moved}) == 6


def test_moving_averages_teach_instead_of_the_networks() -> None:
    scheme = Mutual(net(4), [net(6, 1)], {"kd": KD(temperature=1)}, ema=0.5)
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    began = copy.deepcopy(scheme.peers[0])
    train_step(engine, scheme, [timed()])
    for slow, first, now in zip(
        scheme.averages[1].parameters(),
        began.parameters(),
        scheme.peers[0].parameters(),
        strict=True,
    ):
        assert torch.allclose(slow, (first + now) / 2)
    average_log_probs = scheme.averages[1](batch())["logits"].log_softmax(1)
    expected = F.kl_div(
        scheme.student(batch())["logits"].log_softmax(1),
        average_log_probs,
        reduction="batchmean",
        log_target=True,
    )
    assert torch.allclose(next(iter(scheme.step(timed()))).losses["kd"], expected)
    with pytest.raises(ValueError, match="sequential: averages move after the step"):
        Mutual(net(4), [net(6, 1)], {"kd": KD()}, sequential=True, ema=0.5)


def test_needs_a_peer() -> None:
    with pytest.raises(ValueError, match="mutual learning needs at least one peer"):
        Mutual(net(4), [], Objectives({"kd": KD()}))


def test_exports_the_student() -> None:
    student = net(4)
    assert Mutual(student, [net(6)], {"kd": KD()}).export() is student


def test_detached_cuts_all_there_is() -> None:
    x = torch.ones(2, requires_grad=True) * 2
    outputs = detach_outputs({"logits": x, "features": (x, (x, x))})
    assert not outputs["logits"].requires_grad
    assert not outputs["features"][1][0].requires_grad


def test_sequential_networks_learn_from_updated_outputs() -> None:
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
        others = [
            F.kl_div(logits[i], other, reduction="batchmean", log_target=True)
            for other in logits[:i] + logits[i + 1 :]
        ]
        assert torch.allclose(update.losses["kd"], torch.stack(others).mean(), atol=1e-6)
        engine.backward(update, {"kd": torch.tensor(1.0)}, last=True)
        engine.step(update.learner)


def test_sequential_passes_do_not_move_the_statistics_of_batch_norm_again() -> None:
    student = Net(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5)), call)
    scheme = Mutual(student, [net(6, 1)], {"kd": KD()}, sequential=True)
    scheme.train().prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    step = timed()
    train_step(engine, scheme, [step])
    norm = student.model[0]
    torch.testing.assert_close(norm.running_mean, 0.1 * step["x"].mean(0))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    "options",
    [
        {"sequential": True},
        {"ema": 0.9},
        {"others": "probabilities"},
        {"others": "logits", "sequential": True},
    ],
)
def test_contracts_with_options(options: dict[str, Any]) -> None:
    check_scheme(
        lambda: Mutual(
            net(4), [net(6, 1), net(8, 2)], {"cross_entropy": CrossEntropy(), "kd": KD()}, **options
        ),
        lambda step: batch(seed=step),
    )


def test_the_others_combined_are_one_teacher() -> None:
    nets = [net(4), net(6, 1), net(8, 2)]
    logits = [one(batch())["logits"] for one in nets]
    probability = torch.stack([one.softmax(1) for one in logits[1:]]).mean(0)
    assert torch.allclose(averaged_logits(logits[1:]).exp(), probability, atol=1e-6)
    assert torch.allclose(averaged_logits(logits[1:], "logits"), (logits[1] + logits[2]) / 2)
    scheme = Mutual(nets[0], nets[1:], {"kd": KD(temperature=1)}, others="probabilities")
    scheme.prepare(batch())
    update = next(iter(scheme.step(timed())))
    assert torch.allclose(
        update.losses["kd"],
        F.kl_div(logits[0].log_softmax(1), probability, reduction="batchmean"),
        atol=1e-6,
    )
    fit = Mutual(net(4), [net(6)], {"fitnet": FitNet()}, others="logits")
    with pytest.raises(ValueError, match="FitNet needs features"):
        fit.prepare(batch())
