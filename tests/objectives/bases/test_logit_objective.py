"""Properties of all losses on logits: standardization, extreme values, compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from instil.functional.divergences import expectation, kl_divergence
from instil.functional.logits import standardize
from instil.objectives.bases.logit_objective import LogitObjective
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.labels.label_smoothing import label_smoothing_loss
from instil.objectives.logits.dist import DIST, dist_loss
from instil.objectives.logits.dkd import DKD, dkd_loss
from instil.objectives.logits.kd import KD, kd_loss
from instil.objectives.logits.logit_mse import LogitMSE, logit_mse_loss
from instil.objectives.logits.nkd import NKD, nkd_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
OBJECTIVES: list[type[KD] | type[LogitObjective]] = [KD, LogitMSE, DKD, NKD, DIST]
LOSSES: dict[str, Loss] = {
    "kd": lambda s, t, y: kd_loss(s, t),
    "kd sigmoid": lambda s, t, y: kd_loss(s, t, multi_label=True),
    "logit_mse": lambda s, t, y: logit_mse_loss(s, t),
    "dkd": dkd_loss,
    "nkd": nkd_loss,
    "dist": lambda s, t, y: dist_loss(s, t),
    "cross_entropy": lambda s, t, y: cross_entropy_loss(s, y),
    "label_smoothing": lambda s, t, y: label_smoothing_loss(s, y),
}
every_loss = pytest.mark.parametrize(
    "loss", [pytest.param(loss, id=name) for name, loss in LOSSES.items()]
)
every_objective = pytest.mark.parametrize("kind", OBJECTIVES)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    )


def run(objective: KD | LogitObjective, student: Tensor, teacher: Tensor) -> Tensor:
    batch: dict[str, Any] = {"label": torch.arange(len(student)) % student.shape[-1]}
    return objective({"logits": student}, {"logits": teacher}, batch)


def test_standardize_equals_the_formula() -> None:
    values = logits(4, 6).numpy()
    expected = (values - values.mean(1, keepdims=True)) / (
        values.std(1, ddof=1, keepdims=True) + 1e-7
    )
    np.testing.assert_allclose(standardize(torch.from_numpy(values)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [1, 2])
def test_standardize_refuses_what_it_would_make_constant(classes: int) -> None:
    with pytest.raises(ValueError, match="at least 3 classes"):
        standardize(torch.randn(4, classes))


def test_standardize_of_equal_logits_is_zero_with_a_finite_gradient() -> None:
    values = torch.ones(2, 4, requires_grad=True)
    assert (standardize(values) == 0).all()
    assert torch.autograd.grad(standardize(values)[:, 0].sum(), values)[0].isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100), st.floats(-100, 100))
def test_standardized_losses_ignore_scale_and_shift(scale: float, shift: float) -> None:
    student, teacher = logits(5, 6), logits(5, 6, seed=1)
    for kind in OBJECTIVES:
        objective = kind(standardize=True)
        torch.testing.assert_close(
            run(objective, student * scale + shift, teacher),
            run(objective, student, teacher),
            rtol=1e-5,
            atol=1e-6,
        )


@every_objective
def test_d11_the_flag_switches_standardization_on_and_is_off_by_default(
    kind: type[KD] | type[LogitObjective],
) -> None:
    student, teacher = logits(5, 6), logits(5, 6, seed=1)
    plain = run(kind(), student, teacher)
    torch.testing.assert_close(
        run(kind(standardize=True), student, teacher),
        run(kind(), standardize(student), standardize(teacher)),
    )
    torch.testing.assert_close(run(kind(standardize=False), student, teacher), plain)
    assert not torch.allclose(run(kind(standardize=True), student, teacher), plain)


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("standardized", [False, True])
def test_extreme_logits_give_finite_values_and_gradients(
    kind: type[KD] | type[LogitObjective], dtype: torch.dtype, standardized: bool
) -> None:
    base = torch.eye(4, 5, dtype=dtype) * 2e4 - 1e4
    cases = [base, -base, base.roll(1, -1), torch.zeros_like(base)]
    for student in cases:
        for teacher in cases:
            leaf = student.clone().requires_grad_()
            value = run(kind(standardize=standardized), leaf, teacher)
            assert value.dtype == torch.float32
            assert value.isfinite().all()
            assert torch.autograd.grad(value.sum(), leaf)[0].isfinite().all()


@every_objective
def test_zero_at_a_match_agrees_with_the_card(kind: type[KD] | type[LogitObjective]) -> None:
    teacher = logits(6, 5)
    value = run(kind(), teacher, teacher).abs().max()
    assert (value < 1e-4) == kind.card.zero_at_match  # DIST: up to the epsilon of its denominator


@every_objective
def test_a_teacher_without_requires_grad_gets_no_gradient(
    kind: type[KD] | type[LogitObjective],
) -> None:
    student, teacher = logits(6, 5).requires_grad_(), logits(6, 5, seed=1)
    run(kind(), student, teacher).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@every_loss
def test_half_precision_becomes_float32_and_double_stays(loss: Loss) -> None:
    student, teacher, target = logits(6, 5), logits(6, 5, seed=1), torch.arange(6) % 5
    assert loss(student, teacher, target).dtype == torch.float64
    half = student.bfloat16(), teacher.bfloat16()
    assert loss(*half, target).dtype == torch.float32
    torch.testing.assert_close(loss(*half, target), loss(half[0].float(), half[1].float(), target))


@every_loss
def test_order_of_items_and_of_classes_does_not_matter(loss: Loss) -> None:
    student, teacher, target = logits(6, 5), logits(6, 5, seed=1), torch.arange(6) % 5
    expected = loss(student, teacher, target)
    items, classes = (
        torch.randperm(6, generator=torch.Generator().manual_seed(0)),
        torch.tensor([2, 0, 4, 1, 3]),
    )
    torch.testing.assert_close(loss(student[items], teacher[items], target[items]), expected)
    torch.testing.assert_close(
        loss(student[:, classes], teacher[:, classes], classes.argsort()[target]), expected
    )


@every_loss
def test_gradient_is_that_of_finite_differences(loss: Loss) -> None:
    student, teacher, target = (
        logits(3, 4).requires_grad_(),
        logits(3, 4, seed=1),
        torch.tensor([0, 3, -100]),
    )
    assert torch.autograd.gradcheck(lambda leaf: loss(leaf, teacher, target), student)


@pytest.mark.parametrize("name", ["kd", "dkd", "nkd", "cross_entropy"])
def test_compiles_whole(name: str) -> None:
    student, teacher, target = (
        logits(6, 5),
        logits(6, 5, seed=1),
        torch.tensor([0, 1, 2, 3, -100, 4]),
    )
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, target), LOSSES[name](student, teacher, target)
    )


def test_divergence_of_certain_teachers_is_the_students_surprise() -> None:
    teacher, student = torch.tensor([0.0, -torch.inf]), torch.tensor([0.25, 0.75]).log()
    torch.testing.assert_close(kl_divergence(teacher, student), torch.tensor(4.0).log())


@pytest.mark.parametrize("live", [False, True])
def test_an_expectation_does_not_see_what_has_no_weight(live: bool) -> None:
    weight = torch.tensor([[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]], dtype=torch.float64).requires_grad_(
        live
    )
    values = torch.tensor(
        [[-torch.inf, 2.0, 4.0], [1.0, 3.0, torch.inf]], dtype=torch.float64, requires_grad=True
    )
    actual = expectation(weight, values)
    assert actual.tolist() == [3.5, 2.0]
    (gradient,) = torch.autograd.grad(actual, values, torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert torch.equal(gradient, weight.detach() * torch.tensor([[1.0], [2.0]]))
    assert expectation(weight, values, values.detach()).tolist() == [0.0, 0.0]
    if live:
        finite = values.detach().clamp(-9, 9).requires_grad_()
        less = torch.randn(2, 3).double().requires_grad_()
        assert torch.autograd.gradcheck(
            expectation, (weight.detach().clamp_min(0.1).requires_grad_(), finite, less)
        )


def test_the_gradient_of_an_expectation_has_a_gradient() -> None:
    weight, values = torch.rand(2, 3).double(), torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda inputs: expectation(weight, inputs.square()), (values,)
    )
