from __future__ import annotations

import pytest
import torch

from instil.functional.directions import SHORTEST, angle_cosines, cosine, l2_normalize, pairwise_dot


def test_unit_has_length_one_along_its_dimension() -> None:
    values = torch.randn(3, 5, 4, dtype=torch.float64)
    for dim in (0, 1, -1):
        assert torch.allclose(l2_normalize(values, dim).square().sum(dim), torch.ones(()).double())
        assert torch.allclose(
            l2_normalize(values, dim) * torch.linalg.vector_norm(values, dim=dim, keepdim=True),
            values,
        )


@pytest.mark.parametrize("length", [0.0, SHORTEST / 2, 1.0, 1e18])
def test_a_vector_without_direction_is_zero_and_has_no_gradient(length: float) -> None:
    values = torch.tensor([[length, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(l2_normalize(values)[:, 1].sum(), values)
    assert torch.isfinite(gradient).all()
    assert l2_normalize(values)[0, 0] == (length > SHORTEST)
    assert gradient[0, 1] == pytest.approx(1 / length if length > SHORTEST else 0.0)


def test_what_is_not_finite_does_not_become_zero() -> None:
    broken = torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0]])
    assert l2_normalize(broken).isnan().any(1).all()
    assert cosine(broken, torch.ones(2, 2)).isnan().all()


def test_the_length_may_be_a_constant_for_the_gradient() -> None:
    values = torch.tensor([[3.0, 4.0]], requires_grad=True)
    (through,) = torch.autograd.grad(l2_normalize(values)[0, 0], values)
    (constant,) = torch.autograd.grad(l2_normalize(values, through_length=False)[0, 0], values)
    assert torch.allclose(constant, torch.tensor([[1 / 5, 0.0]]))
    assert torch.allclose(through, torch.tensor([[16 / 125, -12 / 125]]))


def test_products_stay_in_full_precision() -> None:
    one, two = torch.randn(2, 3, 64), torch.randn(2, 5, 64)
    expected = torch.einsum("nmd,nkd->nmk", one, two)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = pairwise_dot(one, two)
    assert actual.dtype == torch.float32
    assert torch.allclose(actual, expected, atol=1e-5)
    assert pairwise_dot(one.bfloat16(), two.bfloat16()).dtype == torch.float32


def test_angles_of_a_right_triangle() -> None:
    actual = angle_cosines(torch.tensor([[0.0, 0], [3, 0], [0, 4]]))
    assert actual[0, 1, 2] == 0
    assert actual[1, 0, 2] == pytest.approx(0.6)
    assert actual[2, 1, 0] == pytest.approx(0.8)
    assert actual[0, 0, 1] == 0
    assert actual[0, 1, 1] == pytest.approx(1)
