"""Teacher-bounded regression loss against a plain loop, and unlabelled outputs."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.logits.regression_kd import RegressionKD, regression_kd_loss

NAN = math.nan


@pytest.mark.parametrize("margin", [0.0, 1.5])
@pytest.mark.parametrize("outputs", [1, 3])
def test_equals_the_formula(outputs: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher, target = (
        torch.randn(12, outputs, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    expected = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        student_error, teacher_error = (
            sum((a - b) ** 2 for a, b in zip(side, y, strict=True)) for side in (s, t)
        )
        expected.append(student_error if student_error + margin > teacher_error else 0.0)
    assert 0 < sum(value > 0 for value in expected) < 12
    values = regression_kd_loss(student, teacher, target, margin, "none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(regression_kd_loss(student, teacher, target, margin), values.mean())
    compiled = torch.compile(regression_kd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, teacher, target, margin), values.mean())


def test_the_dimension_of_one_output_is_optional() -> None:
    student, teacher, target = torch.randn(5, 1), torch.randn(5, 1), torch.randn(5)
    assert torch.equal(
        regression_kd_loss(student, teacher, target),
        regression_kd_loss(student, teacher, target[:, None]),
    )


@pytest.mark.parametrize("unlabelled", [-100.0, NAN])
def test_unlabelled_outputs_do_not_count_and_have_no_gradient(unlabelled: float) -> None:
    student = torch.tensor([[1.0, 9.0], [2.0, 9.0], [9.0, 9.0]], requires_grad=True)
    label = torch.tensor([[0.0, 9.0], [0.0, unlabelled], [unlabelled, unlabelled]])
    objectives = Objectives({"it": RegressionKD(margin=100.0)})
    objectives.build({"logits": student}, {"logits": torch.zeros(3, 2)})
    batch = {"x": torch.zeros(3), "label": label}
    assert objectives.counts(batch)["it"] == 2
    loss = objectives({"logits": student}, {"logits": torch.zeros(3, 2)}, batch).losses["it"]
    assert loss.item() == pytest.approx((1 + 4) / 2)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(regression_kd_loss(student, torch.zeros(3, 2), label, 100.0), loss)


def test_each_position_has_a_label() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher, label = (torch.randn(2, 3, 2, generator=generator) for _ in range(3))
    label[0, 1] = NAN
    valid = torch.tensor([[True, True, False], [True, True, True]])
    objectives = Objectives({"it": RegressionKD(1.0)})
    objectives.build({"logits": student}, {"logits": teacher})
    loss = objectives(
        {"logits": student},
        {"logits": teacher},
        {"x": torch.zeros(2), "label": label, "valid": valid},
    ).losses["it"]
    torch.testing.assert_close(
        loss, regression_kd_loss(student[valid], teacher[valid], label[valid], 1.0)
    )


def test_wrong_shapes_raise() -> None:
    with pytest.raises(
        ValueError, match=r"target has shape \(4,\); expected the outputs' shape \(4, 3\)"
    ):
        regression_kd_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4))
