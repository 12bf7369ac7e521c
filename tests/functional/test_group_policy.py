"""Advantages of groups, clipped policy values and rewards of texts."""

from __future__ import annotations

import pytest
import torch

from instil.core import UNLABELLED
from instil.functional.group_policy import (
    clipped_policy_values,
    exact_match,
    group_advantages,
    token_accuracy,
)


def test_advantages_have_mean_zero_and_deviation_one_in_each_group() -> None:
    reward = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    reward[:, 2] = 1.0
    advantage = group_advantages(reward)
    assert advantage.mean(0).abs().max() < 1e-6
    assert advantage[:, 2].abs().max() == 0
    others = advantage[:, [0, 1, 3]].var(0, correction=0)
    assert torch.allclose(others, torch.ones(3), atol=1e-4)


def test_a_longer_or_shorter_text_is_not_an_exact_match() -> None:
    reference = torch.tensor([[UNLABELLED, 1, 2, UNLABELLED]])
    longer = torch.tensor([[UNLABELLED, 1, 2, 3]])
    shorter = torch.tensor([[UNLABELLED, 1, UNLABELLED, UNLABELLED]])
    assert exact_match(reference, reference).item() == 1
    assert exact_match(longer, reference).item() == 0
    assert exact_match(shorter, reference).item() == 0
    assert token_accuracy(longer, reference).item() == pytest.approx(2 / 3)
    assert token_accuracy(shorter, reference).item() == pytest.approx(1 / 2)


def test_the_gradient_of_a_clipped_token_is_zero() -> None:
    old = torch.full((2, 3), 0.4).log()
    new = torch.tensor([[0.6, 0.4, 0.2]]).repeat(2, 1).log().requires_grad_()
    values = clipped_policy_values(new, old, torch.tensor([1.0, -1.0]), 0.2)
    expected = torch.tensor([[-1.2, -1.0, -0.5], [1.5, 1.0, 0.8]])
    torch.testing.assert_close(values, expected)
    values.sum().backward()
    # The derivative of the ratio for the log-probability is the ratio itself.
    expected_gradient = torch.tensor([[0.0, -1.0, -0.5], [1.5, 1.0, 0.0]])
    torch.testing.assert_close(new.grad, expected_gradient)
