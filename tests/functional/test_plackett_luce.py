from __future__ import annotations

import math

import pytest
import torch

from instil.functional.plackett_luce import choice_nll


def test_each_choice_is_a_softmax_among_those_that_are_left() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    expected = [
        [-math.log(math.exp(row[k]) / sum(math.exp(z) for z in row[k:])) for k in range(3)]
        for row in scores.tolist()
    ]
    torch.testing.assert_close(choice_nll(scores), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e8])
def test_finite_for_scores_of_any_size(size: float) -> None:
    scores = (size * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    surprise = choice_nll(scores)
    (gradient,) = torch.autograd.grad(surprise.sum(), scores)
    assert torch.isfinite(surprise).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() <= 6
    assert choice_nll(scores.bfloat16()).dtype == torch.float32
