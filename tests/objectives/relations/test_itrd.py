from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.relations.itrd import ITRD, itrd_correlation_loss, itrd_mutual_loss


@pytest.mark.parametrize("order", [1.01, 1.5])
def test_correlation_agrees_with_a_plain_loop(order: float) -> None:
    student, teacher = (
        torch.randn(6, 4, dtype=torch.float64),
        torch.randn(6, 4, dtype=torch.float64),
    )
    total = 0.0
    for d in range(4):
        student_values, teacher_values = student[:, d].numpy(), teacher[:, d].numpy()
        correlation = (
            ((student_values - student_values.mean()) @ (teacher_values - teacher_values.mean()))
            / 6
            / (student_values.std(ddof=1) * teacher_values.std(ddof=1))
        )
        total += (1 - correlation) ** (2 * order)
    assert np.isclose(float(itrd_correlation_loss(student, teacher, order)), math.log2(total))


def test_correlation_at_a_match_and_without_variance() -> None:
    teacher = torch.randn(8, 5, dtype=torch.float64)
    expected = math.log2(5) - 2 * 1.5 * math.log2(8)
    assert float(itrd_correlation_loss(3 * teacher + 1, teacher, 1.5)) == pytest.approx(expected)
    constant = torch.ones(8, 5, dtype=torch.float64, requires_grad=True)
    loss = itrd_correlation_loss(constant, teacher)
    assert float(loss.detach()) == pytest.approx(math.log2(5))
    assert torch.isfinite(torch.autograd.grad(loss, constant)[0]).all()


def test_mutual_information_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 7, dtype=torch.float64),
    )
    grams = []
    for side in (student.numpy(), teacher.numpy()):
        directions = [row / math.sqrt(row @ row) for row in side]
        grams.append(np.array([[a @ b for b in directions] for a in directions]))
    student_values, both = grams[0] / np.trace(grams[0]), grams[0] * grams[1]
    both = both / np.trace(both)
    assert np.isclose(
        float(itrd_mutual_loss(student, teacher)), (student_values**2).sum() - (both**2).sum()
    )


def test_the_loss_falls_with_the_similarity_of_the_student() -> None:
    teacher = torch.randn(6, 8, dtype=torch.float64)
    others = torch.randn(6, 8, dtype=torch.float64)
    losses = [
        float(itrd_correlation_loss(teacher + noise * others, teacher)) for noise in (0.0, 0.3, 3.0)
    ]
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("width", [4, 6])
def test_which_embedding_each_term_takes(width: int) -> None:
    student, teacher = {"embedding": torch.randn(5, width)}, {"embedding": torch.randn(5, 6)}
    objective = ITRD(correlation=0.5, mutual=3.0, order=1.5)
    objective.build(student, teacher)
    aligned = objective.head(student["embedding"])
    correlation = itrd_correlation_loss(aligned, teacher["embedding"], 1.5)
    mutual = itrd_mutual_loss(student["embedding"] if width == 6 else aligned, teacher["embedding"])
    assert torch.isclose(objective(student, teacher, {}), 0.5 * correlation + 3 * mutual)


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    for loss in (itrd_correlation_loss, itrd_mutual_loss):
        assert torch.allclose(
            torch.compile(loss, fullgraph=True, backend="eager")(student, teacher),
            loss(student, teacher),
            rtol=1e-4,
        )
