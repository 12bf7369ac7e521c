"""Drawn classes: live draws are the sample's own, their mean is the forward KL, and the top K alone are biased."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives, Sampled
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.sampled_kd import SampledKD, sampled_kd_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(number: int, step: int = 0) -> Batch:
    return {
        "index": torch.arange(number),
        "step": torch.tensor(step),
        "valid": torch.ones(number, 3),
    }


def loss(student: Tensor, teacher: Tensor, given: Batch, draws: int = 50) -> Tensor:
    objectives = Objectives({"it": SampledKD(draws)})
    objectives.build({"logits": student}, {"logits": teacher})
    return objectives({"logits": student}, {"logits": teacher}, given).losses["it"]


def test_many_draws_come_to_the_forward_kl() -> None:
    student, teacher = draw(40, 3, 9).requires_grad_(), 2 * draw(40, 3, 9, seed=1)
    wanted = forward_kl_loss(student, teacher)
    found = loss(student, teacher, batch(40), 4000)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=0.01)
    near, exact = (torch.autograd.grad(value, student)[0] for value in (found, wanted))
    assert torch.cosine_similarity(near.flatten(), exact.flatten(), 0) > 0.995


def test_draws_are_the_samples_own() -> None:
    """Of (step, index) alone: not of the cut of the batch or of who comes first; other in the next step."""
    student, teacher = draw(6, 3, 9), draw(6, 3, 9, seed=1)
    objective = SampledKD(5)
    objective.resolve({"logits"}, {"logits"})
    values = objective({"logits": student}, {"logits": teacher}, batch(6))
    order = torch.tensor([4, 1, 0])
    given = {key: value[order] if value.ndim else value for key, value in batch(6).items()}
    torch.testing.assert_close(
        objective({"logits": student[order]}, {"logits": teacher[order]}, given), values[order]
    )
    assert not torch.equal(objective({"logits": student}, {"logits": teacher}, batch(6, 1)), values)
    assert values[0].unique().numel() == 3


def test_a_record_of_the_draws_gives_what_they_gave() -> None:
    student, teacher = draw(4, 3, 9), draw(4, 3, 9, seed=1)
    ids = torch.randint(0, 9, (4, 3, 5), generator=torch.Generator().manual_seed(2))
    sampled = Sampled(ids.int(), teacher.log_softmax(-1).gather(-1, ids))
    objectives = Objectives({"it": SampledKD()})
    objectives.build({"logits": student}, {"sampled": sampled})
    found = objectives({"logits": student}, {"sampled": sampled}, batch(4)).losses["it"]
    wanted = (teacher.log_softmax(-1) - student.log_softmax(-1)).gather(-1, ids).mean()
    torch.testing.assert_close(found, wanted)


def test_what_the_top_alone_teach_is_not_the_teacher_and_what_draws_teach_is() -> None:
    """The best student of the renormalised top K says p / P inside and nothing outside; that of the draws is the teacher."""
    teacher = draw(1, 12, seed=3).double()
    log_p = teacher.log_softmax(-1)[0]
    student = torch.zeros(1, 12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([student], 0.1)
    every = Sampled(
        torch.arange(12).view(1, -1),
        log_p.view(1, -1),
        torch.full((1, 12), 1 / 12, dtype=torch.float64).log(),
    )
    for _ in range(150):
        optimizer.zero_grad()
        sampled_kd_loss(student, every).backward()
        optimizer.step()
    assert (student.detach().log_softmax(-1)[0] - log_p).abs().max() < 1e-2
