"""Sampled KD: reproducible samples, forward KL in expectation, and bias of the top K."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.sampled_kd import SampledKD, sampled_kd_loss
from instil.roles import Sampled


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(num_samples: int, step: int = 0) -> Batch:
    return {
        "index": torch.arange(num_samples),
        "step": torch.tensor(step),
        "valid": torch.ones(num_samples, 3),
    }


def loss(student: Tensor, teacher: Tensor, samples: Batch, draws: int = 50) -> Tensor:
    objectives = Objectives({"it": SampledKD(draws)})
    objectives.build({"logits": student}, {"logits": teacher})
    return objectives({"logits": student}, {"logits": teacher}, samples).losses["it"]


def test_many_samples_approximate_the_forward_kl() -> None:
    student, teacher = draw(40, 3, 9).requires_grad_(), 2 * draw(40, 3, 9, seed=1)
    expected = forward_kl_loss(student, teacher)
    estimate = loss(student, teacher, batch(40), 4000)
    assert float(estimate.detach()) == pytest.approx(float(expected.detach()), rel=0.01)
    estimated, exact = (torch.autograd.grad(value, student)[0] for value in (estimate, expected))
    assert torch.cosine_similarity(estimated.flatten(), exact.flatten(), 0) > 0.995


def test_sampled_classes_depend_only_on_sample_and_step() -> None:
    """They depend neither on the split nor on the order of the batch, and change with the step."""
    student, teacher = draw(6, 3, 9), draw(6, 3, 9, seed=1)
    objective = SampledKD(5)
    objective.resolve({"logits"}, {"logits"})
    values = objective({"logits": student}, {"logits": teacher}, batch(6))
    order = torch.tensor([4, 1, 0])
    samples = {key: value[order] if value.ndim else value for key, value in batch(6).items()}
    torch.testing.assert_close(
        objective({"logits": student[order]}, {"logits": teacher[order]}, samples), values[order]
    )
    assert not torch.equal(objective({"logits": student}, {"logits": teacher}, batch(6, 1)), values)
    assert values[0].unique().numel() == 3


def test_recorded_samples_give_the_mean_log_ratio() -> None:
    student, teacher = draw(4, 3, 9), draw(4, 3, 9, seed=1)
    ids = torch.randint(0, 9, (4, 3, 5), generator=torch.Generator().manual_seed(2))
    sampled = Sampled(ids.int(), teacher.log_softmax(-1).gather(-1, ids))
    objectives = Objectives({"it": SampledKD()})
    objectives.build({"logits": student}, {"sampled": sampled})
    estimate = objectives({"logits": student}, {"sampled": sampled}, batch(4)).losses["it"]
    expected = (teacher.log_softmax(-1) - student.log_softmax(-1)).gather(-1, ids).mean()
    torch.testing.assert_close(estimate, expected)


def test_the_minimum_over_weighted_samples_is_the_teacher() -> None:
    """The minimum over the renormalised top K would be p / P inside K and 0 outside."""
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
