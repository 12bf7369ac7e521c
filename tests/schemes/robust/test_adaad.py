"""AdaAD: attack and target adapt to the teacher."""

from __future__ import annotations

import torch

from instil.functional.robust_losses import soft_label_loss
from instil.objectives.logits.kd import KD
from instil.schemes.robust.adaad import AdaAD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.image_nets import images, net, timed


def make() -> AdaAD:
    return AdaAD(
        net(2), Frozen(net(3, 1)), {"kd": KD(1.0)}, 0.9, epsilon=0.2, step_size=0.05, attack_steps=2
    )


def test_contracts() -> None:
    check_scheme(make, images)


def test_the_teacher_predicts_on_the_attacked_image() -> None:
    scheme, batch = make(), timed()
    scheme.prepare(batch)
    prepared_batch = scheme.before_step(batch)
    at = {"image": prepared_batch["attacked"]}
    expected = (
        0.9
        * soft_label_loss(scheme.student(at)["logits"], scheme.teacher_outputs(at)["logits"]).mean()
    )
    assert torch.allclose(next(iter(scheme.step(prepared_batch))).losses["robust"], expected)


def test_the_attack_follows_the_gradient_of_both_nets() -> None:
    scheme, batch = make(), timed()
    scheme.prepare(batch)
    leaf = batch["image"].clone().requires_grad_()
    apart = soft_label_loss(
        scheme.student({"image": leaf})["logits"],
        scheme.teacher_outputs({"image": leaf}, grad=True)["logits"],
    )
    (expected,) = torch.autograd.grad(apart.sum(), leaf)
    leaf = batch["image"].clone().requires_grad_()
    (actual,) = torch.autograd.grad(scheme.attack_loss(batch)(leaf).sum(), leaf)
    assert torch.allclose(actual, expected)
    alone = soft_label_loss(
        scheme.student({"image": leaf})["logits"], scheme.teacher_outputs(batch)["logits"]
    )
    (of_one,) = torch.autograd.grad(alone.sum(), leaf)
    assert not torch.allclose(actual, of_one)
