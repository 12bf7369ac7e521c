"""MEAL V2: a divergence and a discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.meal import MEAL, meal_discriminator_loss, meal_similarity_loss


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_similarity_is_a_true_divergence() -> None:
    student, teacher = random_logits(3, 4), random_logits(3, 4, seed=1)
    p, q = teacher.softmax(-1).tolist(), student.softmax(-1).tolist()
    expected = [
        sum(a * math.log(a / b) for a, b in zip(x, y, strict=True))
        for x, y in zip(p, q, strict=True)
    ]
    assert meal_similarity_loss(student, teacher, "none").tolist() == pytest.approx(expected)


def test_the_discriminator_loss_is_small_for_correct_scores() -> None:
    confident = torch.tensor([[9.0, -9.0]])
    assert meal_discriminator_loss(confident, -confident).item() < 1e-3
    assert meal_discriminator_loss(-confident, confident).item() > 8
    assert meal_discriminator_loss(torch.zeros(1, 2), torch.zeros(1, 2)).item() == pytest.approx(
        math.log(2)
    )


@pytest.mark.parametrize("adversarial", [True, False])
def test_the_student_maximises_the_discriminator_loss_if_adversarial(adversarial: bool) -> None:
    student, teacher = random_logits(6, 8).requires_grad_(), random_logits(6, 8, seed=1)
    objective = MEAL(adversarial=adversarial)
    objectives = Objectives({"meal": objective})
    torch.manual_seed(0)
    objectives.build({"logits": student}, {"logits": teacher})
    loss = objectives({"logits": student}, {"logits": teacher}, {"x": torch.zeros(6)}).losses[
        "meal"
    ]
    discriminator_loss = meal_discriminator_loss(
        objective.critic(student), objective.critic(teacher)
    )
    torch.testing.assert_close(loss, meal_similarity_loss(student, teacher) + discriminator_loss)
    weights = list(objective.critic.parameters())
    similarity = meal_similarity_loss(student, teacher)
    loss_grads, discriminator_grads = (
        torch.autograd.grad(one, [student, *weights], retain_graph=True)
        for one in (loss - similarity, discriminator_loss)
    )
    torch.testing.assert_close(
        loss_grads[0], -discriminator_grads[0] if adversarial else discriminator_grads[0]
    )
    assert all(
        torch.allclose(loss_grad, discriminator_grad)
        for loss_grad, discriminator_grad in zip(
            loss_grads[1:], discriminator_grads[1:], strict=True
        )
    )
