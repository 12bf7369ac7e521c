"""Multi-level optimal transport against loops over lists."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.logits.multilevel_ot import MultilevelOT, multilevel_ot_loss, unit_deviation

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = torch.randn(2, 3, 5, generator=GENERATOR, dtype=torch.float64)
TEACHER = 2 * torch.randn(2, 3, 6, generator=GENERATOR, dtype=torch.float64)
Rows = list[list[float]]


def softmax(logits: list[float], standardize: bool, temperature: float) -> list[float]:
    if standardize:
        mean = sum(logits) / len(logits)
        variance = sum((value - mean) ** 2 for value in logits) / (len(logits) - 1)
        logits = [value / (math.sqrt(variance) + 1e-4) for value in logits]
    exponents = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponents) for value in exponents]


def ranked_rows(rows: Rows, top_k: int) -> Rows:
    sums = [sum(column) for column in zip(*rows, strict=True)]
    order = sorted(range(len(sums)), key=lambda i: -sums[i])[:top_k]
    return [[row[i] for i in order] for row in rows]


def sinkhorn_costs(cost: Rows, epsilon: float, iterations: int) -> list[float]:
    size = range(len(cost))
    plan = [[math.exp(-value / epsilon) for value in row] for row in cost]
    for _ in range(iterations):
        plan = [[value / sum(row) for value in row] for row in plan]
        columns = [sum(plan[i][j] for i in size) for j in size]
        plan = [[plan[i][j] / columns[j] for j in size] for i in size]
    return [sum(plan[i][j] * cost[i][j] for j in size) for i in size]


def by_hand(
    student: Rows, teacher: Rows, top_k: int, standardize: bool, temperature: float
) -> list[float]:
    """Values of one sequence at the weights 0.3 and 0.7, regularisation 0.2, 4 iterations."""
    q, p = (
        ranked_rows([softmax(row, standardize, temperature) for row in side], top_k)
        for side in (student, teacher)
    )
    cost = [[sum(abs(a - b) for a, b in zip(x, y, strict=True)) for y in p] for x in q]
    moved = sinkhorn_costs(cost, 0.2, 4)
    values = []
    for i, (x, y) in enumerate(zip(q, p, strict=True)):
        logarithmic = -sum(b * math.log(a) for a, b in zip(x, y, strict=True))
        values.append(cost[i][i] + 0.3 * logarithmic + 0.7 * moved[i])
    return values


@pytest.mark.parametrize(
    ("top_k", "standardize", "temperature"), [(4, True, 1.0), (2, False, 2.0), (50, True, 0.5)]
)
def test_values_equal_plain_loops(top_k: int, standardize: bool, temperature: float) -> None:
    values = multilevel_ot_loss(
        STUDENT, TEACHER, top_k, 0.3, 0.7, temperature, standardize, 0.2, 4, reduction="none"
    )
    size = min(top_k, 5)
    for row in range(2):
        sides = STUDENT[row].tolist(), TEACHER[row].tolist()
        expected = by_hand(*sides, size, standardize, temperature)
        assert values[row].tolist() == pytest.approx(expected, rel=1e-9)


def test_one_token_is_a_sequence() -> None:
    values = multilevel_ot_loss(STUDENT[:, 0], TEACHER[:, 0], 4, reduction="none")
    expected = multilevel_ot_loss(STUDENT[:, :1], TEACHER[:, :1], 4, reduction="none")
    assert torch.allclose(values, expected[:, 0])


def test_positions_that_do_not_count_change_nothing() -> None:
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    values = multilevel_ot_loss(STUDENT, TEACHER, 3, weight=weight, reduction="none")
    cut = multilevel_ot_loss(STUDENT[:, :2], TEACHER[:, :2], 3, reduction="none")
    assert torch.allclose(values[:, :2], cut)
    mean = multilevel_ot_loss(STUDENT, TEACHER, 3, weight=weight)
    assert torch.allclose(mean, cut.mean())


def test_the_objective_is_the_function() -> None:
    valid = torch.tensor([[True, True, True], [True, True, False]])
    objective = MultilevelOT(top_k=3, temperature=1.5)
    loss = Objectives({"it": objective})(
        {"logits": STUDENT}, {"logits": TEACHER}, {"valid": valid}
    ).losses["it"]
    expected = multilevel_ot_loss(STUDENT, TEACHER, 3, temperature=1.5, weight=valid.double())
    assert torch.allclose(loss, expected)


@pytest.mark.parametrize("standardize", [True, False])
def test_gradients_equal_central_differences(standardize: bool) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: multilevel_ot_loss(logits, TEACHER, 3, standardize=standardize), student
    )


def test_an_impossible_token_changes_neither_ranks_nor_deviation() -> None:
    column = torch.full((2, 3, 1), -torch.inf, dtype=torch.float64)
    student, teacher = (torch.cat([side, column], -1) for side in (STUDENT, TEACHER))
    value = multilevel_ot_loss(student, teacher, 4)
    assert torch.allclose(value, multilevel_ot_loss(STUDENT, TEACHER, 4))
    flat = torch.zeros(1, 1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(unit_deviation(flat).sum(), flat)
    assert torch.isfinite(gradient).all()


def test_other_shapes_raise() -> None:
    with pytest.raises(ValueError, match="which belong together"):
        multilevel_ot_loss(STUDENT, TEACHER[:, :2])
    with pytest.raises(ValueError, match="student_logits: wrong number of dimensions"):
        multilevel_ot_loss(STUDENT[0, 0], TEACHER[0, 0])
    with pytest.raises(ValueError, match="reduction: unknown value"):
        multilevel_ot_loss(STUDENT, TEACHER, reduction="sum")
