"""A critic and a student that fools it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.functional.critic_losses import critic_loss, generator_loss, gradient_penalty
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import Body, batch, call, net, timed
from tests.schemes import image_nets as robust

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "embedding of another width": {"role": "embedding"},
    "hinge, conditional": {"form": "hinge", "condition": "label", "weight": 0.01},
    "spectral norm": {"spectral_norm": True},
    "penalty": {"penalty": 2.0},
    "penalty every third step": {"penalty": 2.0, "penalty_every": 3},
    "features": {"role": "features", "condition": "label", "penalty": 1.0, "spectral_norm": True},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_contracts(options: dict[str, Any]) -> None:
    def make() -> Adversarial:
        torch.manual_seed(0)
        if options.get("role") == "features":
            return Adversarial(robust.net(2), Frozen(robust.net(3, 1)), {"kd": KD()}, **options)
        return Adversarial(net(8), Frozen(net(6, 1)), {"kd": KD()}, **options)

    check_scheme(
        make, robust.images if options.get("role") == "features" else lambda step: batch(seed=step)
    )


@pytest.mark.parametrize("role", ["maps", "tokens"])
def test_the_score_of_a_sample_is_the_mean_over_its_positions(role: str) -> None:
    def tapped(width: int, seed: int) -> Net:
        inner = robust.net(width, seed)
        return Net(inner.model, inner.call, {role: ["2"]})

    options = {"role": role, "condition": "label", "penalty": 1.0}
    scheme = Adversarial(tapped(2, 0), Frozen(tapped(3, 1)), {"kd": KD()}, **options)
    scheme.prepare(robust.images())
    update = next(iter(scheme.step(robust.timed())))
    assert torch.isfinite(torch.stack(list(update.losses.values()))).all()
    values = torch.randn(16, 3, 3, 3)
    assert scheme.critic is not None
    scores = scheme.critic(scheme._append_class(values, robust.timed()))
    expected = torch.stack([score.mean() for score in scores])
    torch.testing.assert_close(scheme._score(values, robust.timed()), expected)


def test_both_losses_are_those_of_the_paper() -> None:
    student, teacher, critic = net(4), net(8, 1), nn.Linear(5, 1)
    scheme = Adversarial(
        student, Frozen(teacher), {"cross_entropy": CrossEntropy()}, critic, weight=0.3
    )
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    with torch.no_grad():
        fake, real = student(batch())["logits"], teacher(batch())["logits"]
        expected = F.binary_cross_entropy_with_logits(
            critic(real), torch.ones(16, 1)
        ) + F.binary_cross_entropy_with_logits(critic(fake), torch.zeros(16, 1))
    losses = train_step(engine, scheme, [timed()])
    assert torch.allclose(losses["critic/critic"], expected, atol=1e-6)
    with torch.no_grad():  # the student faces the critic as it is after its update
        fooled = 0.3 * F.binary_cross_entropy_with_logits(critic(fake), torch.ones(16, 1))
    assert torch.allclose(losses["student/fool"], fooled, atol=1e-6)


def test_items_that_are_not_valid_do_not_count() -> None:
    valid = torch.arange(16) < 10
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batch())
    whole, part = (
        timed() | {"valid": valid},
        {key: value[:10] if value.ndim else value for key, value in timed().items()},
    )
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
    assert set(train_step(engine, scheme, [timed()])) == {
        "critic/critic",
        "student/fitnet",
        "student/fool",
    }


def test_a_role_that_is_not_there_and_widths_that_differ() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"scheme\.role: the critic reads 'tokens' of the student, which outputs logits, "
            r"embedding"
        ),
    ):
        Adversarial(net(4), Frozen(net(8)), {"kd": KD()}, role="tokens").prepare(batch())
    with pytest.raises(
        ValueError,
        match=r"scheme\.role: the critic reads 'logits' of the teacher, which outputs nothing",
    ):
        Adversarial(net(4), None, {"cross_entropy": CrossEntropy()}).prepare(batch())
    with pytest.raises(
        ValueError, match=r"scheme\.role: 'logits' has width 5 in the student and 3 in the teacher"
    ):
        Adversarial(robust.net(2), Frozen(robust.net(2, classes=3)), {"fitnet": FitNet()}).prepare(
            robust.images()
        )
    with pytest.raises(ValueError, match=r"scheme\.condition: the critic is shown class labels"):
        Adversarial(net(4), Frozen(net(8)), {"kd": KD()}, condition="label").prepare(
            {"x": batch()["x"]}
        )


def test_hinge_losses_have_their_margin() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert torch.equal(critic_loss(real, fake, "hinge"), torch.tensor([0.0, 0.5 + 1.5]))
    assert torch.equal(generator_loss(fake, "hinge"), -fake)


def test_the_penalty_is_half_the_squared_gradient_and_counts_more_the_rarer_it_is() -> None:
    critic = nn.Linear(5, 1)
    for every, factor in ((1, 1.0), (4, 4.0)):
        scheme = Adversarial(
            net(4), Frozen(net(8, 1)), {"kd": KD()}, critic, penalty=3.0, penalty_every=every
        )
        scheme.prepare(batch())
        for step in range(5):
            losses = next(iter(scheme.step(timed(step)))).losses
            assert (
                ("penalty" in losses)
                is (step % every == 0)
                is ("penalty" in scheme.counts(timed(step)))
            )
            if step == 0:
                assert torch.allclose(
                    losses["penalty"], 3 * factor * critic.weight.square().sum() / 2
                )
    actual = gradient_penalty(
        (real := torch.randn(6, 3, 2, 2, requires_grad=True)).pow(2).sum(), real, 1
    )
    assert torch.allclose(actual, 2 * real.square().flatten(1).sum(1))


def test_spectral_norm_is_the_largest_singular_value_and_moves_after_the_step_alone() -> None:
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()}, spectral_norm=True)
    scheme.prepare(batch())
    assert scheme.critic is not None
    for part in scheme.critic.modules():
        if isinstance(part, nn.Linear):
            assert float(torch.linalg.matrix_norm(part.weight.detach(), 2)) == pytest.approx(
                1, abs=1e-3
            )
    before = {name: value.clone() for name, value in scheme.critic.named_buffers()}
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    updates = scheme.step(timed())
    for update in updates:
        assert update.losses
    assert all(torch.equal(value, before[name]) for name, value in scheme.critic.named_buffers())
    train_step(engine, scheme, [timed()])
    assert not all(
        torch.equal(value, before[name]) for name, value in scheme.critic.named_buffers()
    )


def test_a_conditional_critic_sees_the_label_and_nothing_where_there_is_none() -> None:
    scheme = Adversarial(
        robust.net(2), Frozen(robust.net(2, 1)), {"kd": KD()}, role="features", condition="label"
    )
    scheme.prepare(robust.images())
    inputs = robust.timed()
    shown = scheme._append_class(torch.zeros(16, 2, 3, 3), inputs)
    assert shown.shape == (16, 2 + 5, 3, 3)
    for row, label in zip(shown[:, 2:].amax((2, 3)), inputs["label"].tolist(), strict=True):
        assert row.tolist() == [float(label == index) for index in range(5)]


def test_the_critic_is_not_shipped() -> None:
    student = Net(Body(), call)
    assert Adversarial(student, Frozen(net(8)), {"kd": KD()}).export() is student
