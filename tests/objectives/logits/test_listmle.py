"""ListMLE against the product of choices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from instil.objectives.logits.listmle import ListMLE, listmle_loss


def ranking_probability(scores: list[float], order: list[int]) -> float:
    probability, remaining = 1.0, list(order)
    for choice in order:
        probability *= math.exp(scores[choice]) / sum(
            math.exp(scores[other]) for other in remaining
        )
        remaining.remove(choice)
    return probability


@pytest.mark.parametrize("classes", [2, 5])
def test_equals_the_formula(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(4, classes, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        expected.append(
            -math.log(ranking_probability(s, sorted(range(classes), key=lambda index: -t[index])))
        )
    values = ListMLE()({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(listmle_loss(student, teacher), values.mean())
    compiled = torch.compile(listmle_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, teacher), values.mean())


def test_the_probabilities_of_all_rankings_sum_to_one() -> None:
    student = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rankings = torch.tensor(list(itertools.permutations(range(4))))
    teachers = torch.zeros(24, 4, dtype=torch.float64).scatter(
        1, rankings, -torch.arange(4.0, dtype=torch.float64).expand(24, 4)
    )
    probabilities = torch.exp(-listmle_loss(student.expand(24, 4), teachers, "none"))
    assert float(probabilities.sum()) == pytest.approx(1)


def test_only_the_order_of_the_teacher_matters() -> None:
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.equal(
        listmle_loss(student, teacher), listmle_loss(student, 10 * teacher.exp() + 3)
    )


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_the_float32_gradient_equals_the_float64_gradient(size: float) -> None:
    student, teacher = size * torch.randn(3, 100), torch.randn(3, 100)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = student.to(dtype).requires_grad_()
        gradients.append(
            torch.autograd.grad(listmle_loss(leaf, teacher.to(dtype)), leaf)[0].double()
        )
    assert (gradients[0] - gradients[1]).abs().max() < 2e-3 * gradients[1].abs().max()


def test_one_class_raises() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        listmle_loss(torch.zeros(3, 1), torch.zeros(3, 1))
