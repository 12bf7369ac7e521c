"""GKL against loops over pairs of classes, its class means, and its relation to KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.gkl import GKL, gkl_loss
from instil.objectives.logits.kd import kd_loss


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 4, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher, torch.tensor([0, 1, 3, 1, -100])


def squared_errors(
    student: Tensor, teacher: Tensor, prior: Tensor, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sum over pairs of classes and sum of the weights, for each item."""
    sums, weights = [], []
    for s, t, p in zip(student.numpy(), teacher.numpy(), prior.numpy() ** gamma, strict=True):
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s))]
        sums.append(sum(p[i] * p[j] * ((t[i] - t[j]) - (s[i] - s[j])) ** 2 for i, j in pairs) / 4)
        weights.append(sum(p[i] * p[j] for i, j in pairs))
    return np.array(sums), np.array(weights)


@pytest.mark.parametrize(
    ("temperature", "beta", "gamma"), [(4.0, 16.0, 0.05), (1.0, 0.5, 0.6), (2.0, 1.0, 1.0)]
)
def test_equals_the_formula(temperature: float, beta: float, gamma: float) -> None:
    student, teacher, _ = case()
    prior = (teacher / 2).softmax(-1)
    sums, weights = squared_errors(student, teacher, prior, gamma)
    soft = kd_loss(student, teacher, temperature, scale=False, reduction="none")
    arguments = (student, teacher, temperature, beta, gamma, prior)
    torch.testing.assert_close(
        gkl_loss(*arguments, reduction="none"), soft + beta * torch.from_numpy(sums / weights)
    )
    torch.testing.assert_close(
        gkl_loss(*arguments, "batch"), soft.mean() + beta * sums.sum() / weights.sum()
    )
    for normalize in ("sample", "batch"):
        objective = GKL(temperature, 2.0, beta, gamma, "sample", normalize)
        assert objective.couples == (normalize == "batch")
        values = objective({"logits": student}, {"logits": teacher}, {})
        torch.testing.assert_close(values.mean(), gkl_loss(*arguments, normalize))
        assert values.ndim == (normalize == "sample")


def test_the_squared_error_has_the_gradient_of_kl_with_respect_to_the_teacher() -> None:
    """Theorem of the paper: with p as constant weights, wMSE has the teacher's gradient of KL."""
    student, teacher, _ = case()
    teacher.requires_grad_()
    (whole,) = torch.autograd.grad(kd_loss(student, teacher, 1.0), teacher)
    prior = teacher.detach().softmax(-1)
    error = gkl_loss(student, teacher, 1.0, 1.0, 1.0, prior) - kd_loss(student, teacher, 1.0)
    (ours,) = torch.autograd.grad(error, teacher)
    torch.testing.assert_close(ours, whole)


def test_class_means_cover_all_items_so_far() -> None:
    student, teacher, label = case()
    objective = GKL(4.0, 2.0, 16.0, 0.5)
    objectives = Objectives({"it": objective})
    objectives.build({"logits": student}, {"logits": teacher})
    batch = {"image": torch.zeros(5, 1), "label": label}
    uniform = torch.full((5, 4), 0.25, dtype=torch.float64)
    own = (teacher / 2).softmax(-1)
    prior = torch.where((label == -100)[:, None], own, uniform)
    update = objectives({"logits": student}, {"logits": teacher}, batch)
    torch.testing.assert_close(
        objective({"logits": student}, {"logits": teacher}, batch),
        gkl_loss(student, teacher, 4.0, 16.0, 0.5, prior, reduction="none"),
    )
    objectives.after_step(update.state_updates)
    mean = (
        torch.stack(
            [
                uniform[0] + own[0],
                (uniform[0] + own[1] + own[3]) * 2 / 3,
                uniform[0] * 2,
                uniform[0] + own[2],
            ]
        )
        / 2
    )
    prior = torch.stack([mean[0], mean[1], mean[3], mean[1], own[4]])
    torch.testing.assert_close(
        objective({"logits": student}, {"logits": teacher}, batch),
        gkl_loss(student, teacher, 4.0, 16.0, 0.5, prior, reduction="none"),
    )


def test_invalid_items_do_not_move_the_means() -> None:
    student, teacher, label = case()
    objective = GKL()
    objective.build({"logits": student}, {"logits": teacher})
    before = objective.class_sum.clone()
    valid = torch.zeros(5, dtype=torch.bool)
    objective.after_step(
        objective.state_updates(
            {"logits": student},
            {"logits": teacher},
            {"image": torch.zeros(5, 1), "label": label, "valid": valid},
        )
    )
    assert torch.equal(objective.class_sum, before)


def test_wrong_arguments_are_refused() -> None:
    student, teacher, _ = case()
    objective = GKL()
    objective.build({"logits": student}, {"logits": teacher})
    with pytest.raises(
        ValueError, match=r"prior: class weights need labels\. Expected 'label' in the batch"
    ):
        objective({"logits": student}, {"logits": teacher}, {"image": student})
    with pytest.raises(
        ValueError, match=r"normalize: .* Expected one of sample, batch, got 'items'"
    ):
        gkl_loss(student, teacher, normalize="items")  # type: ignore[arg-type]


def test_compiles() -> None:
    student, teacher, _ = case()
    compiled = torch.compile(gkl_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, normalize="batch"), gkl_loss(student, teacher, normalize="batch")
    )
