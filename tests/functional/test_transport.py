from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from instil.functional.transport import sinkhorn_cost, uniform_transport_plan


def by_hand(cost: np.ndarray, regularization: float, iterations: int) -> np.ndarray:
    kernel, rows = np.exp(-cost / regularization), np.ones(cost.shape[0])
    for _ in range(iterations):
        columns = 1 / cost.shape[1] / (kernel.T @ rows)
        rows = 1 / cost.shape[0] / (kernel @ columns)
    moved: np.ndarray = rows[:, None] * kernel * columns[None]
    return moved


@pytest.mark.parametrize(("regularization", "iterations"), [(0.1, 1), (0.3, 7), (0.05, 40)])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 1)])
def test_plan_agrees_with_plain_scaling(
    shape: tuple[int, int], regularization: float, iterations: int
) -> None:
    cost = 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        uniform_transport_plan(cost, regularization, iterations),
        torch.tensor(by_hand(cost.numpy(), regularization, iterations)),
    )


def test_plan_tends_to_the_cheapest_matching() -> None:
    cost = 2 * torch.rand(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cheapest = (
        min(
            sum(float(cost[i, j]) for i, j in enumerate(order))
            for order in itertools.permutations(range(5))
        )
        / 5
    )
    plan = uniform_transport_plan(cost, 0.03, 2000)
    assert float((plan * cost).sum()) == pytest.approx(cheapest, rel=0.02)
    torch.testing.assert_close(plan.sum(0), torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), torch.full((5,), 0.2, dtype=torch.float64))


def test_both_forms_agree_on_equal_masses() -> None:
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    equal = torch.full((4,), 0.25, dtype=torch.float64).log()
    torch.testing.assert_close(
        sinkhorn_cost(equal, equal, cost, 0.1, 9),
        (uniform_transport_plan(cost, 0.1, 9) * cost).sum(),
    )


def test_opposites_are_finite_in_float32() -> None:
    cost = torch.full((3, 3), 2.0)
    cost[0, 1:] = 0
    exact = by_hand(cost.double().numpy(), 0.05, 50)
    torch.testing.assert_close(
        uniform_transport_plan(cost, 0.05, 50), torch.tensor(exact).float(), atol=1e-6, rtol=1e-4
    )
