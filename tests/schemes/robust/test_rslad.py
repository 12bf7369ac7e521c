"""RSLAD: soft labels for attacks and losses."""

from __future__ import annotations

import torch

from instil.functional.robust_losses import soft_label_loss
from instil.objectives.logits.kd import KD
from instil.schemes.robust.rslad import RSLAD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.image_nets import images, net, timed


def make(weight: float = 5 / 6) -> RSLAD:
    return RSLAD(
        net(2),
        Frozen(net(3, 1)),
        {"kd": KD(1.0)},
        weight,
        epsilon=0.2,
        step_size=0.05,
        attack_steps=2,
    )


def test_contracts() -> None:
    check_scheme(make, images)


def test_the_attack_raises_the_divergence_from_the_teachers_clean_output_without_labels() -> None:
    scheme, batch = make(), timed()
    scheme.prepare(batch)
    prepared_batch = scheme.before_step(batch)
    assert torch.equal(
        prepared_batch["attacked"],
        scheme.before_step({key: value for key, value in batch.items() if key != "label"})[
            "attacked"
        ],
    )
    teacher = scheme.teacher_outputs(batch)["logits"]
    apart = [
        soft_label_loss(scheme.student({"image": image})["logits"], teacher)
        for image in (prepared_batch["attacked"], batch["image"])
    ]
    assert (apart[0] > apart[1]).all()
    losses = next(iter(scheme.step(prepared_batch))).losses
    assert torch.allclose(losses["robust"], 5 / 6 * apart[0].mean())
    assert torch.allclose(losses["kd"], apart[1].mean())
