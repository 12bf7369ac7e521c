"""Estimates from drawn tokens: whose gradient they have, by enumeration; advantages that do not depend on where a text stands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.objectives.token_policy import clipped_policy_loss, prefix_weights, rewards_to_go, sampled_reverse_kl, whitened


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over_the_draws(student: Tensor, values: Tensor) -> Tensor:
    """The mean over the student's own draws of the gradient of one value a token."""
    return torch.autograd.grad((student.detach().softmax(-1) * values).sum(), student)[0]


def test_k2_has_the_gradient_of_the_reverse_kl_and_k1_and_k3_do_not() -> None:
    student, teacher = draw(12).requires_grad_(), draw(12, seed=1)
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    reverse = torch.autograd.grad(reverse_kl_loss(student, teacher), student)[0]
    forward = torch.autograd.grad(forward_kl_loss(student, teacher), student)[0]
    torch.testing.assert_close(over_the_draws(student, sampled_reverse_kl(log_q, log_p)), reverse)
    k1 = student.log_softmax(-1) - log_p
    assert over_the_draws(student, k1).abs().max() < 1e-15
    log_q = student.log_softmax(-1)
    k3 = (log_p - log_q).exp() - 1 + log_q - log_p
    torch.testing.assert_close(over_the_draws(student, k3), forward)
    assert (forward - reverse).abs().max() > 0.01


@pytest.mark.parametrize(("estimator", "reason"), [("k1", "its gradient is 0"), ("k3", "that of the forward KL")])
def test_other_estimators_are_refused(estimator: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sampled_reverse_kl(draw(3), draw(3), estimator)  # type: ignore[arg-type]


def test_rewards_to_go_are_discounted_by_distance() -> None:
    """The formula, one token at a time; and a text shifted by padding earns the same."""
    rewards, mask = draw(1, 5), torch.tensor([[1.0, 1, 1, 1, 0]], dtype=torch.float64)
    wanted = [sum(0.9 ** (u - t) * float(rewards[0, u]) for u in range(t, 4)) / max(4 - t, 1) for t in range(5)]
    found = rewards_to_go(rewards, mask, 0.9)
    assert found[0].tolist() == pytest.approx(wanted)
    shifted = torch.cat([draw(1, 3, seed=2), rewards], 1), torch.cat([torch.zeros(1, 3), mask], 1)
    torch.testing.assert_close(rewards_to_go(*shifted, 0.9)[:, 3:], found)
    torch.testing.assert_close(rewards_to_go(rewards, mask, 0.9, normalized=False)[:, 3], rewards[:, 3])


def test_a_prompt_earns_what_comes_after_it_and_padding_nothing() -> None:
    mask = torch.tensor([[0.0, 1, 1, 0]])
    found = rewards_to_go(torch.tensor([[100.0, 2, 4, 100]]), mask)
    assert found.tolist() == [[3.0, 3.0, 4.0, 0.0]]


def test_whitening_counts_what_was_drawn_alone() -> None:
    values, mask = draw(2, 5), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    counted = whitened(values, mask)[mask > 0]
    assert abs(float(counted.mean())) < 1e-12
    assert float(counted.std()) == pytest.approx(1)
    moved = torch.where(mask > 0, values, 1e6)
    torch.testing.assert_close(whitened(moved, mask)[mask > 0], counted)


def test_a_clipped_policy_stops_where_it_has_gone_far_enough() -> None:
    before, advantage = torch.zeros(4), torch.tensor([1.0, 1, -1, -1])
    student = torch.tensor([0.1, 0.5, -0.1, -0.5]).requires_grad_()
    values = clipped_policy_loss(student, before, advantage)
    gradient = torch.autograd.grad(values.sum(), student)[0]
    assert gradient[[1, 3]].tolist() == [0, 0]
    assert gradient[0] < 0 < gradient[2]


def test_on_the_policy_its_gradient_is_that_of_the_reverse_kl() -> None:
    """With the teacher's log-probability less the student's as advantage, in the mean over the draws."""
    student, teacher = draw(12).requires_grad_(), draw(12, seed=1)
    log_q = student.log_softmax(-1)
    values = clipped_policy_loss(log_q, log_q.detach(), teacher.log_softmax(-1) - log_q)
    reverse = torch.autograd.grad(reverse_kl_loss(student, teacher), student, retain_graph=True)[0]
    torch.testing.assert_close(over_the_draws(student, values), reverse)


def test_early_tokens_weigh_more_and_padding_enters_nothing() -> None:
    gap, mask = torch.tensor([[1.0, -1, 2, 9]]), torch.tensor([[1, 1, 1, 0]])
    assert prefix_weights(gap, mask)[0, :3].tolist() == pytest.approx([2, 1.75, 1.5])
    assert prefix_weights(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [[2, 2]]
