"""DFAD: imitation steps, then a generation step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.objectives.logits.logit_mae import LogitMAE
from instil.schemes.data_free.dfad import DFAD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.generator_nets import blank, classifier, maker, shapes


def scheme(**options: Any) -> DFAD:
    return DFAD(
        classifier(4), Frozen(classifier(6, 1)), {"logit_mae": LogitMAE()}, maker(), **options
    )


def test_keeps_the_contracts() -> None:
    check_scheme(lambda: scheme(student_steps=2), shapes)


def test_the_student_learns_on_fresh_images_before_the_generator_does() -> None:
    it = scheme(student_steps=3)
    it.prepare(blank())
    turns, values = [], []
    for update in it.step(blank()):
        turns.append(update.learner)
        values += [float(value.detach()) for value in update.losses.values()]
    assert turns == ["student", "student", "student", "generator"]
    assert len(set(values)) == 4, (
        "nothing was updated in between, so that the same images would give the same losses"
    )


def test_each_update_remembers_other_images() -> None:
    it = scheme(memory=24)
    it.prepare(blank())
    it.replay.push(image=torch.rand(24, *blank()["image"].shape[1:]))
    fresh = torch.full_like(blank()["image"], 2.0)
    first, second = (it._with_remembered(blank(), fresh, turn) for turn in (0, 1))
    # Fresh images are those with the value 2.
    assert not torch.equal(first == 2, second == 2)
    assert not torch.isin(first[first != 2], second[second != 2]).all()


@pytest.mark.parametrize("apart", ["mae", "log_mae"])
def test_the_generator_raises_what_the_student_lowers(apart: str) -> None:
    it = scheme(distance=apart)
    it.prepare(blank())
    seen = {"image": it.generate(blank(), 5)}
    difference = (it.student(seen)["logits"] - it.teacher_outputs(seen)["logits"]).abs().mean()
    (loss,) = it.generator_update(blank(), 5).losses.values()
    assert torch.allclose(loss, -(difference if apart == "mae" else (1 + difference).log()))
    (student,) = next(iter(it.student_updates(blank(), 1, fresh=True))).losses.values()
    assert student > 0
