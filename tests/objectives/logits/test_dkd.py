"""DKD against a plain loop, and extreme logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.dkd import DKD, dkd_loss
from instil.objectives.logits.kd import kd_loss


def reference(
    student: Tensor, teacher: Tensor, target: Tensor, alpha: float, beta: float, temperature: float
) -> Tensor:
    values = []
    for s_row, t_row, label in zip(
        student.tolist(), teacher.tolist(), target.tolist(), strict=True
    ):
        p, q = ([math.exp(z / temperature) for z in row] for row in (t_row, s_row))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        rest_p, rest_q = 1 - p[label], 1 - q[label]
        tckd = p[label] * math.log(p[label] / q[label]) + rest_p * math.log(rest_p / rest_q)
        others = [i for i in range(len(p)) if i != label]
        nckd = sum(p[i] / rest_p * math.log((p[i] / rest_p) / (q[i] / rest_q)) for i in others)
        values.append((alpha * tckd + beta * nckd) * temperature**2)
    return torch.tensor(values, dtype=torch.float64)


def case(classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, classes, generator=generator, dtype=torch.float64) * 3 for _ in range(2)
    )
    return student, teacher, torch.tensor([0, 1, classes - 1, 0, 1])


@pytest.mark.parametrize(
    ("alpha", "beta", "temperature"),
    [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0), (1.0, 0.0, 2.0), (0.0, 1.0, 2.0)],
)
def test_equals_the_formula(alpha: float, beta: float, temperature: float) -> None:
    student, teacher, target = case()
    expected = reference(student, teacher, target, alpha, beta, temperature)
    torch.testing.assert_close(
        dkd_loss(student, teacher, target, alpha, beta, temperature, "none"), expected
    )
    torch.testing.assert_close(
        dkd_loss(student, teacher, target, alpha, beta, temperature), expected.mean()
    )
    values = DKD(alpha, beta, temperature)(
        {"logits": student}, {"logits": teacher}, {"label": target}
    )
    torch.testing.assert_close(values, expected)


def test_the_terms_sum_to_kd() -> None:
    """Eq. 6 of the paper: KD = TCKD + (1 - p_target) NCKD."""
    student, teacher, target = case()
    tckd = dkd_loss(student, teacher, target, 1.0, 0.0, 1.0, "none")
    nckd = dkd_loss(student, teacher, target, 0.0, 1.0, 1.0, "none")
    rest = 1 - teacher.softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    torch.testing.assert_close(tckd + rest * nckd, kd_loss(student, teacher, 1.0, reduction="none"))


def test_with_two_classes_the_non_target_term_is_exactly_zero() -> None:
    student, teacher, target = case(2)
    student.requires_grad_()
    loss = dkd_loss(student, teacher, target, alpha=0.0, beta=8.0)
    assert loss == 0
    assert (torch.autograd.grad(loss, student)[0] == 0).all()
    torch.testing.assert_close(
        dkd_loss(student, teacher, target, 1.0, 8.0, 2.0), kd_loss(student, teacher, 2.0)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_d10_loss_and_gradient_are_finite_where_either_side_is_certain(
    dtype: torch.dtype, temperature: float
) -> None:
    sure = torch.full((4, 5), -1e4, dtype=dtype)
    sure[[0, 1, 2, 3], [0, 1, 2, 3]] = 1e4
    for student in (sure, -sure, sure.roll(1, -1), torch.zeros_like(sure)):
        for teacher in (sure, -sure, sure.roll(1, -1), torch.zeros_like(sure)):
            leaf = student.clone().requires_grad_()
            values = dkd_loss(
                leaf, teacher, torch.arange(4), temperature=temperature, reduction="none"
            )
            assert values.dtype == torch.float32
            assert values.isfinite().all()
            assert torch.autograd.grad(values.sum(), leaf)[0].isfinite().all()


def test_d10_a_certain_and_wrong_student_has_a_gradient() -> None:
    student = torch.tensor(
        [[200.0, 0.0, 0.0]]
    ).requires_grad_()  # a softmax of this is 1 and 0, and its log is infinite
    loss = dkd_loss(student, -student.detach(), torch.tensor([0]), temperature=1.0, beta=0.0)
    torch.testing.assert_close(
        loss.detach(), torch.tensor(200.0 - math.log(2)), rtol=1e-4, atol=0.0
    )
    assert torch.autograd.grad(loss, student)[0][0, 0] > 0.9


def test_items_without_a_label_do_not_count() -> None:
    student, teacher, target = case()
    half = torch.where(torch.arange(5) < 3, target, -100)
    torch.testing.assert_close(
        dkd_loss(student, teacher, half), dkd_loss(student[:3], teacher[:3], target[:3])
    )
    assert (dkd_loss(student, teacher, half, reduction="none")[3:] == 0).all()
    assert dkd_loss(student, teacher, torch.full((5,), -100)) == 0


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="have 1 classes, and this loss is defined for 2 or more"):
        dkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(
        ValueError,
        match=r"target is torch.int64 of shape \(2,\); expected class indices .* of shape \(3,\)",
    ):
        dkd_loss(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"target is torch\.float32"):
        dkd_loss(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"^target: .* Expected 0 to 3, .*, got 4"):
        dkd_loss(torch.zeros(3, 4), torch.zeros(3, 4), torch.full((3,), 4))
