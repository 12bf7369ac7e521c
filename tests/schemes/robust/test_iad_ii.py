"""A second teacher that was never attacked."""

from __future__ import annotations

import pytest
import torch

from instil.functional.robust_losses import soft_label_loss
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.robust.iad_ii import IADII
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.image_nets import images, net, timed


def make(**options: float) -> IADII:
    teacher = Ensemble([net(3, 1), net(4, 2)])
    scheme = IADII(
        net(2),
        teacher,
        {"cross_entropy": CrossEntropy()},
        epsilon=0.2,
        step_size=0.05,
        attack_steps=2,
        **options,
    )
    scheme.prepare(images())
    return scheme


def test_contracts() -> None:
    check_scheme(make, images)


def test_the_weights_are_those_of_the_authors_code() -> None:
    """Weight 1/2 for the robust teacher and the student itself, and 1/4 for the natural teacher,
    all on attacked images.
    """
    scheme, batch = make(temperature=2.0), timed(progress=0.5)
    prepared_batch = scheme.before_step(batch)
    at = {"image": prepared_batch["attacked"]}
    attacked, own = scheme.student(at)["logits"], scheme.student(batch)["logits"]
    robust, natural = (member["logits"] for member in scheme.teacher_outputs(at)["members"])
    target = torch.where(
        batch["label"] < 0,
        scheme.teacher_outputs(batch)["members"][0]["logits"].argmax(1),
        batch["label"],
    )
    trust = robust.softmax(1).gather(1, target[:, None])[:, 0] ** 0.1
    first = trust * soft_label_loss(attacked, robust, 2.0) + (1 - trust) * soft_label_loss(
        attacked, own
    )
    expected = 0.5 * first + 0.25 * soft_label_loss(attacked, natural, 2.0)
    (update,) = scheme.step(prepared_batch)
    assert torch.allclose(update.losses["robust"], expected.mean())
    assert torch.equal(
        scheme.teacher_outputs(batch)["logits"],
        scheme.teacher_outputs(batch)["members"][0]["logits"],
    )


def test_two_teachers_are_needed() -> None:
    for teacher in (Frozen(net(3, 1)), Ensemble([net(3, 1)])):
        with pytest.raises(ValueError, match="IADII needs two teachers"):
            IADII(net(2), teacher, {"cross_entropy": CrossEntropy()}).prepare(images())
