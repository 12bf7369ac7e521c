"""MEAL V2: a divergence and a discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.meal import MEAL, meal_discriminator_loss, meal_similarity_loss


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_similarity_is_a_true_divergence() -> None:
    student, teacher = drawn(3, 4), drawn(3, 4, seed=1)
    p, q = teacher.softmax(-1).tolist(), student.softmax(-1).tolist()
    wanted = [
        sum(a * math.log(a / b) for a, b in zip(x, y, strict=True))
        for x, y in zip(p, q, strict=True)
    ]
    assert meal_similarity_loss(student, teacher, "none").tolist() == pytest.approx(wanted)


def test_the_discriminator_is_told_which_is_which() -> None:
    sure = torch.tensor([[9.0, -9.0]])
    assert meal_discriminator_loss(sure, -sure).item() < 1e-3
    assert meal_discriminator_loss(-sure, sure).item() > 8
    assert meal_discriminator_loss(torch.zeros(1, 2), torch.zeros(1, 2)).item() == pytest.approx(
        math.log(2)
    )


@pytest.mark.parametrize("adversarial", [True, False])
def test_the_student_raises_what_the_discriminator_lowers(adversarial: bool) -> None:
    student, teacher = drawn(6, 8).requires_grad_(), drawn(6, 8, seed=1)
    objective = MEAL(adversarial=adversarial)
    objectives = Objectives({"meal": objective})
    torch.manual_seed(0)
    objectives.build({"logits": student}, {"logits": teacher})
    loss = objectives({"logits": student}, {"logits": teacher}, {"x": torch.zeros(6)}).losses[
        "meal"
    ]
    told = meal_discriminator_loss(objective.critic(student), objective.critic(teacher))
    torch.testing.assert_close(loss, meal_similarity_loss(student, teacher) + told)
    weights = list(objective.critic.parameters())
    similar = meal_similarity_loss(student, teacher)
    of_loss, of_told = (
        torch.autograd.grad(one, [student, *weights], retain_graph=True)
        for one in (loss - similar, told)
    )
    torch.testing.assert_close(of_loss[0], -of_told[0] if adversarial else of_told[0])
    assert all(
        torch.allclose(mine, theirs) for mine, theirs in zip(of_loss[1:], of_told[1:], strict=True)
    )
