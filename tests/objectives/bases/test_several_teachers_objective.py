"""Stacked logits of several teachers, and weights by shares."""

from __future__ import annotations

import pytest
import torch

from instil.functional.ensembles import (
    inverse_share_weights,
    members,
    require_teacher_stack,
    stack_teacher_logits,
    teacher_divergences,
)
from instil.objectives.logits.kd import kd_loss


def test_one_teacher_is_a_member_of_its_own() -> None:
    alone = {"logits": torch.zeros(2, 3)}
    assert members(alone) == (alone,)
    assert members({"logits": torch.ones(2, 3), "members": (alone, alone)}) == (alone, alone)


def test_logits_stand_side_by_side_in_full_precision() -> None:
    student = torch.zeros(2, 3, dtype=torch.bfloat16)
    actual = stack_teacher_logits(student, ({"logits": student + 1}, {"logits": student + 2}))
    assert actual.dtype == torch.float32
    assert actual[:, 0, 0].tolist() == [1, 2]


def test_misfits_are_named() -> None:
    student = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="teacher 1 gives features, and no logits"):
        stack_teacher_logits(student, ({"logits": student}, {"features": student}))
    with pytest.raises(ValueError, match=r"teacher 0 has logits \(2, 4\), the student \(2, 3\)"):
        stack_teacher_logits(student, ({"logits": torch.zeros(2, 4)},))
    for wrong in (torch.zeros(2, 3), torch.zeros(0, 2, 3), torch.zeros(2, 2, 4)):
        with pytest.raises(ValueError, match=r"expected \(K, \*\(2, 3\)\)"):
            require_teacher_stack(student, wrong)


def test_each_teacher_has_its_divergence() -> None:
    student, teachers = torch.randn(4, 2, 5), torch.randn(3, 4, 2, 5)
    expected = torch.stack(
        [kd_loss(student, teacher, 2.0, reduction="none") for teacher in teachers]
    )
    assert torch.allclose(teacher_divergences(student, teachers, 2.0), expected)


def test_small_shares_are_favoured() -> None:
    assert torch.allclose(
        inverse_share_weights(torch.tensor([[0.2], [0.3], [0.5]])),
        torch.tensor([[0.4], [0.35], [0.25]]),
    )
    assert inverse_share_weights(torch.tensor([[1.0, 1.0]])).tolist() == [[1, 1]]
