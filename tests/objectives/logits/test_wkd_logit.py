"""WKD for logits: Sinkhorn in plain loops, the exact transport as its limit, and stored costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.functional.transport import sinkhorn_cost
from instil.objectives.logits.wkd_logit import WKDLogit, class_costs, wkd_logit_loss


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(4, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    cost = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    cost = (cost + cost.T) / 2
    return student, teacher, torch.tensor([0, 4, 2, 2]), cost.fill_diagonal_(0)


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def plan(
    source: np.ndarray,
    destination: np.ndarray,
    cost: np.ndarray,
    regularization: float,
    iterations: int,
) -> np.ndarray:
    kernel, rows = np.exp(-cost / regularization), np.ones(len(source)) / len(source)
    for _ in range(iterations):
        columns = destination / (kernel.T @ rows)
        rows = source / (kernel @ columns)
    return rows[:, None] * kernel * columns[None]


@pytest.mark.parametrize(
    ("temperature", "gamma", "regularization", "iterations"),
    [(2.0, 30.0, 0.05, 10), (8.0, 1.0, 0.2, 1)],
)
def test_equals_the_formula(
    temperature: float, gamma: float, regularization: float, iterations: int
) -> None:
    student, teacher, target, cost = case()
    expected = []
    for s, t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        others = [c for c in range(5) if c != y]
        price = cost.numpy()[np.ix_(others, others)]
        moved = plan(
            softmax(s[others] / temperature),
            softmax(t[others] / temperature),
            price,
            regularization,
            iterations,
        )
        expected.append(-softmax(t)[y] * np.log(softmax(s)[y]) + gamma * (moved * price).sum())
    options = temperature, gamma, regularization, iterations
    torch.testing.assert_close(
        wkd_logit_loss(student, teacher, target, cost, *options, "none"),
        torch.tensor(expected, dtype=torch.float64),
    )


def test_tends_to_the_exact_transport() -> None:
    """On a line, the optimal cost is the area between the two cumulative distributions."""
    position = torch.arange(6, dtype=torch.float64) / 10
    cost = (position[:, None] - position).abs()
    generator = torch.Generator().manual_seed(1)
    a, b = (
        torch.randn(3, 6, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(2)
    )
    exact = (a.cumsum(-1) - b.cumsum(-1)).abs()[:, :-1].sum(-1) / 10
    torch.testing.assert_close(
        sinkhorn_cost(a.log(), b.log(), cost, 0.004, 3000), exact, rtol=1e-2, atol=1e-4
    )


def test_transport_to_a_similar_class_costs_less() -> None:
    cost = torch.tensor([[0.0, 0.1, 0.6], [0.1, 0.0, 0.6], [0.6, 0.6, 0.0]])
    confident = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]).log_softmax(-1)
    same, near, far = (
        float(sinkhorn_cost(confident[:1], confident[n : n + 1], cost)) for n in range(3)
    )
    assert same < near < far


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_confident_logits_have_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    cost = 1 - torch.eye(4)
    confident = torch.full((4, 4), -1e4, dtype=dtype).fill_diagonal_(1e4)
    for teacher in (confident, confident.roll(1, 0), -confident, torch.zeros_like(confident)):
        leaf = confident.clone().requires_grad_()
        values = wkd_logit_loss(
            leaf, teacher, torch.tensor([1, 2, 3, 3]), cost, regularization=0.02, reduction="none"
        )
        assert values.isfinite().all()
        assert torch.autograd.grad(values.sum(), leaf)[0].isfinite().all()


def test_costs_equal_the_formula_with_kernel_alignment() -> None:
    rows = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.tensor([[True] * 4, [True] * 4, [True, False, False, False]])
    centred = [x - x.mean(0) for x in rows[:2].numpy()]
    cross, first, second = (
        np.linalg.norm(a.T @ b)
        for a, b in ((centred[1], centred[0]), (centred[0],) * 2, (centred[1],) * 2)
    )
    expected = 1 - np.exp(-2 * (1 - cross**2 / (first * second)))
    cost = class_costs(rows, valid, 2.0)
    torch.testing.assert_close(cost[0, 1], torch.tensor(expected))
    torch.testing.assert_close(cost[2], torch.tensor([1 - np.exp(-2), 1 - np.exp(-2), 0.0]))


def test_costs_follow_the_labelled_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    student = {"logits": torch.randn(9, 3, generator=generator)}
    rows = torch.randn(3, 4, generator=generator)
    teacher = {
        "logits": student["logits"],
        "embedding": torch.cat([rows, rows * 2, torch.randn(3, 4, generator=generator)]),
    }
    label = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, -100])
    objective = WKDLogit(samples_per_class=3)
    objectives = Objectives({"it": objective})
    objectives.build(student, teacher)
    assert objective.reads["teacher"] == ("logits", "embedding")
    apart = 1 - np.exp(-1)
    torch.testing.assert_close(
        objective.cost, apart * (1 - torch.eye(3)).float(), check_dtype=False
    )
    update = objectives(student, teacher, {"image": torch.zeros(9, 1), "label": label})
    objectives.after_step(update.state_updates)
    assert objective.cost[0, 1] < 1e-6  # equal rows up to their length
    assert 0.01 < objective.cost[0, 2] < apart


def test_items_without_a_label_do_not_count() -> None:
    student, teacher, target, cost = case()
    half = torch.where(torch.arange(4) < 2, target, -100)
    torch.testing.assert_close(
        wkd_logit_loss(student, teacher, half, cost),
        wkd_logit_loss(student[:2], teacher[:2], target[:2], cost),
    )


def test_wrong_arguments_raise() -> None:
    student, teacher, target, cost = case()
    with pytest.raises(
        ValueError,
        match=r"cost.*Expected shape \(5, 5\), got \(4, 4\)",
    ):
        wkd_logit_loss(student, teacher, target, cost[:4, :4])


def test_compiles() -> None:
    compiled = torch.compile(wkd_logit_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*case()), wkd_logit_loss(*case()))
