"""LLP against loops over pairs of candidates."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from instil.functional.ranking import PADDED_SCORE
from instil.objectives.logits.llp import LLP, llp_distribution_loss, llp_rank_loss


def scores(seed: int) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))


def rank_value(student: list[float], teacher: list[float], margin: float) -> float:
    values = []
    for i, j in combinations(range(len(student)), 2):
        difference = teacher[i] - teacher[j]
        sign = 0
        if difference > margin:
            sign = 1
        elif difference < -margin:
            sign = -1
        values.append(max(0.0, -sign * (student[i] - student[j]) + margin))
    return sum(values) / len(values)


@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_rank_matching_equals_a_loop(margin: float) -> None:
    student, teacher = scores(0), scores(1)
    expected = [
        rank_value(one.sigmoid().tolist(), other.sigmoid().tolist(), margin)
        for one, other in zip(student, teacher, strict=True)
    ]
    actual = llp_rank_loss(student, teacher, margin, "none")
    torch.testing.assert_close(actual, torch.tensor(expected))


def test_distribution_matching_equals_the_formula() -> None:
    student, teacher = scores(0), scores(1)
    target = (teacher.sigmoid() / 0.2).softmax(1)
    log_ratio = target.log() - (student.sigmoid() / 0.2).log_softmax(1)
    expected = 0.2**2 * (target * log_ratio).sum(1)
    actual = llp_distribution_loss(student, teacher, 0.2, "none")
    torch.testing.assert_close(actual, expected)


def test_missing_candidates_do_not_count() -> None:
    student, teacher = scores(0), scores(1)
    padding = torch.full((4, 2), PADDED_SCORE)
    padded = [torch.cat([side, padding], 1).requires_grad_() for side in (student, teacher)]
    for temperature in (0.1, 4.0):
        objective = LLP(temperature=temperature, rank_weight=2.0, distribution_weight=3.0)
        batch = {"label": torch.zeros(4, 7)}
        value = objective({"logits": padded[0]}, {"logits": padded[1].detach()}, batch)
        rank = llp_rank_loss(student, teacher, reduction="none")
        distribution = llp_distribution_loss(student, teacher, temperature, "none")
        torch.testing.assert_close(value, 2 * rank + 3 * distribution)
        (gradient,) = torch.autograd.grad(value.sum(), padded[0])
        assert gradient.isfinite().all()
        assert not gradient[:, 5:].any()


def test_a_loss_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"both are 0\. Expected at least one above 0"):
        LLP(rank_weight=0, distribution_weight=0)
