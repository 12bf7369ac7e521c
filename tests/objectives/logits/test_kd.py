"""KD against a plain loop, its properties, and known defects of other libraries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from instil.core import Objectives, Schedule
from instil.objectives.logits.kd import KD, kd_loss


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def pair(*shape: int, seed: int = 0, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(*shape, generator=generator, dtype=torch.float64) * spread for _ in range(2)
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_formula(temperature: float) -> None:
    student, teacher = pair(5, 7)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = [
        divergence(softmax([z / temperature for z in t]), softmax([z / temperature for z in s]))
        for s, t in rows
    ]
    torch.testing.assert_close(
        kd_loss(student, teacher, temperature, scale=False, reduction="none"),
        torch.tensor(expected, dtype=torch.float64),
    )
    torch.testing.assert_close(
        kd_loss(student, teacher, temperature),
        torch.tensor(expected, dtype=torch.float64).mean() * temperature**2,
    )


@pytest.mark.parametrize(("classes", "multi_label"), [(1, False), (1, True), (4, True)])
def test_sigmoid_form_equals_the_formula(classes: int, multi_label: bool) -> None:
    student, teacher = pair(5, classes)
    expected = []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        yes = [
            (1 / (1 + math.exp(-t / 2)), 1 / (1 + math.exp(-s / 2)))
            for s, t in zip(s_row, t_row, strict=True)
        ]
        expected.append(4 * sum(divergence([p, 1 - p], [q, 1 - q]) for p, q in yes) / classes)
    values = kd_loss(student, teacher, 2.0, multi_label=multi_label, reduction="none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_one_class_is_not_constant() -> None:
    student, teacher = pair(6, 1)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(kd_loss(student, teacher), student)
    assert (gradient.abs() > 1e-3).all()


def test_any_leading_shape_gives_the_same_values() -> None:
    student, teacher = pair(2, 3, 4, 5)
    values = kd_loss(student, teacher, reduction="none")
    assert values.shape == (2, 3, 4)
    torch.testing.assert_close(
        values.flatten(), kd_loss(student.reshape(24, 5), teacher.reshape(24, 5), reduction="none")
    )
    torch.testing.assert_close(
        kd_loss(student[0, 0, 0], teacher[0, 0, 0], reduction="none"), values[0, 0, 0]
    )


def test_a_class_that_the_teacher_excludes_adds_nothing() -> None:
    student, teacher = pair(3, 4)
    student, teacher = (
        student.index_fill(1, torch.tensor([1]), -torch.inf),
        teacher.index_fill(1, torch.tensor([1]), -torch.inf),
    )
    student.requires_grad_()
    loss = kd_loss(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(
        loss.detach(), kd_loss(student.detach()[:, [0, 2, 3]], teacher[:, [0, 2, 3]])
    )
    assert gradient.isfinite().all()


logits = st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4).map(
    lambda row: torch.tensor(row, dtype=torch.float64)
)


@settings(max_examples=50, deadline=None)
@given(logits, logits, st.floats(0.5, 10), st.floats(-50, 50), st.booleans())
def test_is_never_negative_and_ignores_shift_and_order(
    student: Tensor, teacher: Tensor, temperature: float, shift: float, multi_label: bool
) -> None:
    loss = kd_loss(student, teacher, temperature, multi_label=multi_label)
    assert loss >= -1e-12
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        kd_loss(student[order], teacher[order], temperature, multi_label=multi_label), loss
    )
    torch.testing.assert_close(
        kd_loss(teacher, teacher, temperature, multi_label=multi_label), torch.zeros_like(loss)
    )
    if not multi_label:
        torch.testing.assert_close(
            kd_loss(student + shift, teacher - shift, temperature), loss, rtol=1e-6, atol=1e-9
        )


def test_d3_it_is_a_divergence_and_not_the_squared_error_of_probabilities() -> None:
    student, teacher = pair(5, 7)
    squared = 16 * (torch.softmax(student / 4, -1) - torch.softmax(teacher / 4, -1)).square()
    assert all(
        abs(float(kd_loss(student, teacher) - wrong)) > 1e-3
        for wrong in (squared.mean(), squared.sum(-1).mean())
    )
    sure = torch.tensor([[40.0, 0.0]]).requires_grad_()
    (gradient,) = torch.autograd.grad(kd_loss(sure, -sure.detach(), 1.0), sure)
    assert (
        gradient.abs().max() > 0.9
    )  # the squared error of two sure opposites has no gradient at all


def test_d16_the_loss_depends_on_the_student_and_on_the_teacher() -> None:
    student, teacher = pair(5, 7)
    objective = KD()
    loss = objective({"logits": student.requires_grad_()}, {"logits": teacher}, {})
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert (gradient.abs().sum(-1) > 0).all()
    assert not torch.allclose(
        loss.detach(), objective({"logits": student.detach()}, {"logits": teacher.roll(1, 0)}, {})
    )
    forward, backward = (
        kd_loss(student.detach(), teacher, 1.0),
        kd_loss(teacher, student.detach(), 1.0),
    )
    assert abs(float(forward - backward)) > 1e-3


def test_d17_the_gradient_does_not_shrink_with_temperature_or_number_of_classes() -> None:
    student, teacher = pair(16, 10, spread=0.5)

    def strength(temperature: float, scale: bool = True) -> float:
        leaf = student.clone().requires_grad_()
        return float(
            torch.autograd.grad(kd_loss(leaf, teacher, temperature, scale), leaf)[0].norm()
        )

    assert strength(20.0) == pytest.approx(strength(10.0), rel=0.05)
    assert strength(20.0, scale=False) == pytest.approx(strength(10.0, scale=False) / 4, rel=0.05)
    never = torch.full(
        (16, 90), -40.0, dtype=torch.float64
    )  # classes that neither believes in change nothing; a mean over classes would
    wider = kd_loss(torch.cat([student, never], -1), torch.cat([teacher, never], -1), 1.0)
    torch.testing.assert_close(wider, kd_loss(student, teacher, 1.0))


def test_options_are_read_at_every_call() -> None:
    student, teacher = pair(4, 5)
    objectives = Objectives({"kd": KD(temperature=Schedule(4.0, 2.0))})
    batch = {"image": torch.zeros(4, 1), "progress": torch.tensor(0.5)}
    losses = objectives({"logits": student}, {"logits": teacher}, batch).losses
    torch.testing.assert_close(losses["kd"], kd_loss(student, teacher, 3.0), check_dtype=False)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student logits are \(2, 3\), teacher logits \(2, 4\)"):
        kd_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(
        ValueError,
        match=r"reduction: unknown value\. Expected one of mean, none, got 'meen'",
    ):
        kd_loss(torch.zeros(2, 3), torch.zeros(2, 3), reduction="meen")
    with pytest.raises(ValueError, match="standardize, multi_label: standardize removes the level"):
        KD(standardize=True, multi_label=True)
