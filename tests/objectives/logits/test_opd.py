"""OPD: gradients against enumeration over tokens, and weights of early tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives
from instil.generation.sampling import sample_tokens
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.opd import OPD, opd_loss, prefix_weights
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.roles import Projection


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_expected_gradients_of_the_estimators_k1_k2_and_k3() -> None:
    student, teacher = draw(12).requires_grad_(), draw(12, seed=1)
    every, other = student.expand(12, 12), teacher.expand(12, 12)
    reverse = torch.autograd.grad(reverse_kl_loss(student, teacher), student)[0]
    forward = torch.autograd.grad(forward_kl_loss(student, teacher), student)[0]
    chance = student.detach().softmax(-1)
    gradient = torch.autograd.grad(
        (chance * opd_loss(every, other, torch.arange(12), reduction="none")).sum(), student
    )[0]
    torch.testing.assert_close(gradient, reverse, rtol=1e-6, atol=1e-9)
    gap = student.log_softmax(-1) - teacher.log_softmax(-1)
    k1 = torch.autograd.grad((chance * gap).sum(), student, retain_graph=True)[0]
    assert k1.abs().max() < 1e-15
    k3 = torch.autograd.grad((chance * ((-gap).exp() - 1 + gap)).sum(), student)[0]
    torch.testing.assert_close(k3, forward)
    assert (forward - reverse).abs().max() > 0.01


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.8), (0.7, 1.0)])
def test_its_expected_gradient_needs_samples_from_all_tokens_at_temperature_one(
    temperature: float, top_p: float
) -> None:
    student = torch.tensor([2.0, 1.0, 0.0, -1.0]).requires_grad_()
    teacher = student.detach().flip(0)
    # The tokens of evenly spaced numbers have the frequencies of the sampling distribution.
    numbers = (torch.arange(4000) + 0.5) / 4000
    tokens, _ = sample_tokens(student.detach().expand(4000, -1), numbers, temperature, top_p)
    loss = opd_loss(student.expand(4000, -1), teacher.expand(4000, -1), tokens)
    difference = (
        torch.autograd.grad(loss, student)[0]
        - torch.autograd.grad(reverse_kl_loss(student, teacher), student)[0]
    )
    is_exact = (temperature, top_p) == (1, 1)
    assert difference.abs().max() < 2e-3 if is_exact else difference.abs().max() > 0.05


def test_it_equals_the_policy_gradient_with_decreasing_weights() -> None:
    hidden, weight = draw(2, 5, 4).requires_grad_(), draw(9, 4, seed=1).requires_grad_()
    teacher = draw(2, 5, 9, seed=2)
    drawn = torch.randint(0, 9, (2, 5), generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    log_student, log_teacher = (
        (logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0])
        for logits in (hidden @ weight.T, teacher)
    )
    advantage = (log_teacher - log_student).detach()
    for prefix in (0.0, 0.7):
        policy = (
            -(prefix_weights(advantage, counted, prefix) * advantage * log_student * counted).sum()
            / counted.sum()
        )
        loss = opd_loss(Projection(hidden, weight), teacher, drawn, prefix, counted)
        expected = torch.autograd.grad(policy, (hidden, weight), retain_graph=True)
        torch.testing.assert_close(
            torch.autograd.grad(loss, (hidden, weight)), expected, rtol=1e-6, atol=1e-9
        )


def test_early_tokens_have_more_weight_and_padding_has_no_effect() -> None:
    gap, mask = torch.tensor([[1.0, -1, 2, 9]]), torch.tensor([[1, 1, 1, 0]])
    assert prefix_weights(gap, mask)[0, :3].tolist() == pytest.approx([2, 1.75, 1.5])
    assert prefix_weights(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [[2, 2]]


def test_prompts_and_padding_do_not_count() -> None:
    student, teacher = draw(2, 4, 7), draw(2, 4, 7, seed=1)
    label = torch.tensor([[-100, 3, 1, -100], [-100, -100, 2, 5]])
    batch: Batch = {"label": label, "valid": torch.tensor([[True, True, False, True], [True] * 4])}
    objectives = Objectives({"it": OPD()})
    objectives.build({"logits": student}, {"logits": teacher})
    there = (label >= 0) & batch["valid"]
    gap = (student.log_softmax(-1) - teacher.log_softmax(-1)).gather(
        -1, label.clamp_min(0)[..., None]
    )[..., 0][there]
    torch.testing.assert_close(
        objectives({"logits": student}, {"logits": teacher}, batch).losses["it"],
        (gap.square() / 2).mean(),
    )
    with pytest.raises(ValueError, match=r"sampled_ids.*Expected shape \(2, 4\), got \(2, 3\)"):
        opd_loss(student, teacher, label[:, 1:])
