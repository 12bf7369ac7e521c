"""Shared divergences: their parts add up, and KL is the cross-entropy minus the entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.divergences import (
    decoupled_kl,
    kl_from_log_probs,
    rest_cross_entropy,
    softened_kl,
    target_cross_entropy,
)


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher, torch.tensor([[0, 1, 4], [2, 2, 3]])


def test_kl_is_decomposed_at_the_target() -> None:
    student, teacher, target = case()
    of_target, of_rest = decoupled_kl(student, teacher, target, 2.0)
    left = 1 - (teacher / 2).softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(of_target + left * of_rest, softened_kl(student, teacher, 2.0))


def test_kl_from_constant_probabilities_has_gradients_of_any_order() -> None:
    student, teacher, _ = case()
    several = torch.stack([teacher, teacher.flip(-1)]).div(3).log_softmax(-1)
    assert torch.autograd.gradcheck(
        lambda logits: kl_from_log_probs(several, logits, 3.0), student.requires_grad_()
    )
    assert torch.autograd.gradgradcheck(
        lambda logits: kl_from_log_probs(several, logits, 3.0), student
    )
    live = several.clone().requires_grad_()
    torch.testing.assert_close(
        kl_from_log_probs(several, student, 3.0), kl_from_log_probs(live, student, 3.0)
    )


def test_kl_does_not_see_classes_that_neither_side_thinks_possible() -> None:
    student, teacher, _ = case()
    padded = [
        torch.nn.functional.pad(side, (0, 2), value=-torch.inf) for side in (student, teacher)
    ]
    padded[0].requires_grad_()
    values = softened_kl(*padded)
    torch.testing.assert_close(values, softened_kl(student, teacher))
    (gradient,) = torch.autograd.grad(values.sum(), padded[0])
    assert torch.equal(gradient[..., -2:], torch.zeros(2, 3, 2, dtype=torch.float64))


def test_cross_entropies_of_target_and_rest_make_that_of_the_softmax() -> None:
    """-sum p log q = target part + rest: of the others, p = (1 - p_target) share and log q = log (1
    - q_target) + log share.
    """
    student, teacher, target = case()
    index = target.unsqueeze(-1)
    left, right = (
        1 - logits.softmax(-1).gather(-1, index).squeeze(-1) for logits in (teacher, student)
    )
    whole = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)
    parts = target_cross_entropy(student, teacher, target) + left * (
        rest_cross_entropy(student, teacher, target) - right.log()
    )
    torch.testing.assert_close(parts, whole)
    assert softened_kl(student, teacher).shape == (2, 3)


def test_an_unlabelled_item_stands_for_class_0_and_is_finite() -> None:
    student, teacher, target = case()
    none = torch.full_like(target, -100)
    for ours, other in zip(
        decoupled_kl(student, teacher, none), decoupled_kl(student, teacher, none * 0), strict=True
    ):
        torch.testing.assert_close(ours, other)
    torch.testing.assert_close(
        target_cross_entropy(student, teacher, none),
        target_cross_entropy(student, teacher, none * 0),
    )
