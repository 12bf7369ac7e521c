"""ZSKT: losses of generator and student by hand, and the contract of generator schemes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.functional.keyed_random import keyed_normal
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.logits.kd import KD
from instil.schemes.data_free.dafl import DAFL
from instil.schemes.data_free.zskt import ZSKT
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.fit import Training, check
from instil.training.step import train_step
from tests.schemes.generator_nets import Maker, blank, classifier, maker, shapes, trained


def scheme(**options: Any) -> ZSKT:
    return ZSKT(classifier(4), Frozen(classifier(6, 1)), {"kd": KD(1.0)}, maker(), **options)


def test_keeps_the_contracts() -> None:
    check_scheme(lambda: scheme(student_steps=2), shapes)
    check_scheme(lambda: scheme(generator_steps=2, student_steps=1, memory=24), shapes)


def test_the_generator_climbs_what_the_student_then_descends() -> None:
    """One step of plain gradient ascent on KL(teacher || student) by hand, and the student's loss
    on the images that come of it.
    """
    it = scheme(student_steps=1)
    it.prepare(blank())
    model = it.generator.model
    parameters = {
        name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()
    }

    def apart(generator: dict[str, torch.Tensor]) -> torch.Tensor:
        image = torch.func.functional_call(
            model, generator, (keyed_normal(blank(), 4, "scheme.codes.0"),)
        )
        p, q = (
            it.teacher({"image": image}, grad=True)["logits"].softmax(1),
            it.student({"image": image})["logits"].softmax(1),
        )
        return (p * (p.log() - q.log())).sum(1).mean()

    before = apart(parameters)
    gradients = torch.autograd.grad(before, list(parameters.values()))
    climbed = {
        name: value + 0.5 * gradient
        for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
    }
    after = float(apart(climbed).detach())
    engine = Engine("cpu")
    engine.setup(it, lambda learner: Optimization("sgd", {"lr": 0.5}))
    losses = train_step(engine, it, [blank()])
    assert float(losses["generator/challenge"]) == pytest.approx(-float(before.detach()), rel=1e-4)
    assert float(losses["student/kd"]) == pytest.approx(after, rel=1e-4)
    assert after > float(before.detach())
    assert all(
        torch.allclose(model.get_parameter(name), value, atol=1e-6)
        for name, value in climbed.items()
    )


def test_the_generators_loss_uses_the_student_in_eval_mode() -> None:
    it = ZSKT(classifier(4, norm=True), Frozen(classifier(6, 1)), {"kd": KD(1.0)}, maker())
    it.train().prepare(blank())
    norm = it.student.model[1]
    remembered = norm.running_mean.clone()
    (loss,) = it.generator_update(blank()).losses.values()
    assert torch.equal(norm.running_mean, remembered)
    assert norm.training
    it.student.eval()
    assert torch.equal(loss, next(iter(it.generator_update(blank()).losses.values())))


def test_its_turns_are_those_of_the_recipe() -> None:
    it = scheme(generator_steps=2, student_steps=3)
    it.prepare(blank())
    turns = []
    for update in it.step(blank()):
        turns.append((update.learner, *update.losses))
    assert turns == [*2 * [("generator", "challenge")], *3 * [("student", "kd")]]


def test_a_memory_adds_images_of_earlier_steps_to_the_students_batch() -> None:
    it = scheme(student_steps=1, memory=24)
    trained(it, 2)
    assert int(it.replay.filled) == 24
    with torch.no_grad():
        fresh = it.generate(blank(2))
    seen = it._with_remembered(blank(2), fresh, 0)
    old = (seen != fresh).flatten(1).any(1)
    assert 0 < int(old.sum()) < len(seen)
    for image in seen[old]:
        assert (it.replay["image"] == image).flatten(1).all(1).any()


def test_the_report_is_shown_images_in_the_shape_of_the_datas() -> None:
    it = scheme()
    it.prepare(blank())
    image = it.synthetic_images(blank())
    assert image.shape == (16, 1, 6, 6)
    assert 0 <= float(image.min().detach()) <= float(image.max().detach()) <= 1


def test_inputs_that_do_not_fit_are_refused() -> None:
    def prepared(**changes: Any) -> None:
        parts = {
            "teacher": Frozen(classifier()),
            "objectives": {"kd": KD()},
            "generator": maker(),
        } | changes
        ZSKT(classifier(), **parts).prepare(blank())

    with pytest.raises(ValueError, match="needs a teacher"):
        prepared(teacher=None)
    with pytest.raises(
        ValueError, match=r"wrong shape .* Expected \(16, 1, 8, 8\), .* got \(16, 1, 6, 6\)"
    ):
        scheme().prepare(blank() | {"image": torch.zeros(16, 1, 8, 8)})
    with pytest.raises(ValueError, match="has no attribute 'latent'"):
        prepared(generator=Net(nn.Linear(4, 36)))
    with pytest.raises(ValueError, match="takes gradients by the input"):
        prepared(objectives={"jacobian": Jacobian()})
    coupled = DAFL(classifier(), Frozen(classifier()), {"kd": KD()}, Net(Maker()))
    coupled.prepare(blank())
    with pytest.raises(ValueError, match="balanced"):
        check(coupled, Training(steps=1, accumulate=2))
