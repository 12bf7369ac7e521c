"""IAD: partial trust in the teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.functional.robust_losses import soft_label_loss
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.bases.introspection import iad_loss, trust
from instil.schemes.robust.iad import IAD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.image_nets import images, net, timed


def make(**options: Any) -> IAD:
    scheme = IAD(
        net(2),
        Frozen(net(3, 1)),
        {"cross_entropy": CrossEntropy()},
        epsilon=0.2,
        step_size=0.05,
        attack_steps=2,
        **options,
    )
    scheme.prepare(images())
    return scheme


@pytest.mark.parametrize("trusting", [0.0, 0.3])
def test_contracts(trusting: float) -> None:
    check_scheme(lambda: make(trusting=trusting), images)


def test_trust_is_the_power_of_the_teachers_probability_of_the_label() -> None:
    logits, target = torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = torch.stack(
        [row.softmax(0)[label] ** 0.3 for row, label in zip(logits, target, strict=True)]
    )
    assert torch.allclose(trust(logits, target, 0.3), expected)
    assert torch.equal(trust(logits, target, 0.0), torch.ones(6).double())


def test_full_trust_is_the_teacher_alone_and_none_with_partial_the_student_alone() -> None:
    attacked, clean, teacher = torch.randn(3, 6, 4).unbind()
    assert torch.allclose(
        iad_loss(attacked, clean, teacher, torch.ones(6), 2.0),
        soft_label_loss(attacked, teacher, 2.0),
    )
    assert torch.allclose(
        iad_loss(attacked, clean, teacher, torch.zeros(6), 2.0, partial=True),
        soft_label_loss(attacked, clean),
    )


@pytest.mark.parametrize("answers_to", ["clean", "attacked"])
@pytest.mark.parametrize("partial", [False, True])
def test_the_loss_and_its_start(answers_to: str, partial: bool) -> None:
    scheme, batch = (
        make(answers_to=answers_to, partial=partial, beta=0.5, temperature=2.0),
        timed(progress=0.5),
    )
    prepared_batch = scheme.before_step(batch)
    at = {"image": prepared_batch["attacked"]}
    attacked, clean, under_attack, teacher = (
        scheme.student(at),
        scheme.student(batch),
        scheme.teacher_outputs(at),
        scheme.teacher_outputs(batch),
    )
    target = torch.where(batch["label"] < 0, teacher["logits"].argmax(1), batch["label"])
    a = under_attack["logits"].softmax(1).gather(1, target[:, None])[:, 0].sqrt()
    taught = soft_label_loss(
        attacked["logits"], (teacher if answers_to == "clean" else under_attack)["logits"], 2.0
    )
    expected = (
        (a if partial else 1) * taught
        + (1 - a) * soft_label_loss(attacked["logits"], clean["logits"])
    ).mean()
    assert torch.allclose(next(iter(scheme.step(prepared_batch))).losses["robust"], expected)
    early = prepared_batch | {"progress": torch.tensor(0.2)}
    assert torch.allclose(next(iter(scheme.step(early))).losses["robust"], taught.mean())
