from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.pkt import PKT, pkt_loss
from instil.testing import check_objective


def neighbours(samples: np.ndarray, itself: bool) -> np.ndarray:
    count = len(samples)
    actual = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if itself or i != j:
                lengths = np.sqrt((samples[i] ** 2).sum()) * np.sqrt((samples[j] ** 2).sum())
                actual[i, j] = (samples[i] @ samples[j] / lengths + 1) / 2
    return actual / actual.sum(1, keepdims=True)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_both_forms_agree_with_a_plain_loop(form: str) -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 7, dtype=torch.float64),
    )
    p, q = (neighbours(side.numpy(), form == "code") for side in (teacher, student))
    terms = [
        p[i, j] * np.log(p[i, j] / q[i, j])
        for i in range(5)
        for j in range(5)
        if form == "code" or i != j
    ]
    expected = np.mean(terms) if form == "code" else np.sum(terms)
    assert np.isclose(float(pkt_loss(student, teacher, form, 1e-14)), expected, rtol=1e-9)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e4])
@pytest.mark.parametrize("size", [0, 1, 2, 6])
def test_value_and_gradient_are_finite(form: str, scale: float, size: int) -> None:
    student = (torch.randn(size, 4) * scale).requires_grad_()
    for teacher in (torch.randn(size, 5), -student.detach(), student.detach().clone()):
        loss = pkt_loss(student, teacher, form)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert loss.abs() < 1e-6


def test_opposite_samples_have_no_share_and_no_logarithm_of_zero() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = pkt_loss(student, torch.randn(3, 2), "paper")
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_half_precision_is_raised() -> None:
    student, teacher = torch.randn(6, 4).bfloat16(), torch.randn(6, 5).bfloat16()
    assert pkt_loss(student, teacher).dtype == torch.float32
    assert torch.equal(pkt_loss(student, teacher), pkt_loss(student.float(), teacher.float()))


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"got 'cod'. Did you mean code"):
        pkt_loss(torch.randn(2, 3), torch.randn(2, 3), "cod")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["code", "paper"])
def test_contracts(form: str) -> None:
    check_objective(lambda: PKT(form))  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(pkt_loss, fullgraph=True, backend="eager")(student, teacher),
        pkt_loss(student, teacher),
    )
