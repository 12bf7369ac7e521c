"""Masked views: loss against a loop, hidden views, and forms of the embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.features.masked_views import MaskedViews, masked_views_loss, visible_mean

BATCH = {"index": torch.arange(6), "step": torch.tensor(2)}


def built(student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> MaskedViews:
    torch.manual_seed(0)
    objective = MaskedViews()
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    return objective


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_is_the_smooth_distance_to_the_normalised_embedding(beta: float) -> None:
    predicted = 2 * torch.randn(4, 5, dtype=torch.float64)
    teacher = 3 * torch.randn(4, 5, dtype=torch.float64) + 1
    values = masked_views_loss(predicted, teacher, beta, reduction="none")
    for n in range(4):
        target = teacher[n].numpy()
        target = (target - target.mean()) / np.sqrt(target.var() + 1e-5)
        total = 0.0
        for difference in np.abs(predicted[n].numpy() - target):
            is_small = difference < beta
            total += 0.5 * difference**2 / beta if is_small else difference - beta / 2
        assert np.isclose(float(values[n]), total / 5, rtol=1e-6)


@pytest.mark.parametrize(("ratio", "visible"), [(0.0, 4), (0.25, 3), (0.3, 2), (0.99, 1)])
def test_the_visible_views_are_those_with_the_smallest_numbers(ratio: float, visible: int) -> None:
    views, uniforms = torch.randn(3, 4, 2), torch.rand(3, 4)
    means = visible_mean(views, uniforms, ratio)
    for n in range(3):
        rows = sorted(range(4), key=lambda view: float(uniforms[n, view]))[:visible]
        torch.testing.assert_close(means[n], views[n, rows].mean(0))


def test_hidden_views_have_no_gradient() -> None:
    views = torch.randn(6, 4, 3, requires_grad=True)
    teacher = {"embedding": torch.randn(6, 5)}
    objective = built({"view_embedding": views}, teacher)
    objective({"view_embedding": views}, teacher, BATCH).sum().backward()
    assert views.grad is not None
    is_visible = views.grad.abs().sum(2) > 0
    assert is_visible.sum(1).tolist() == [2] * 6
    assert len({tuple(row) for row in is_visible.tolist()}) > 1, "all samples hide the same views"


def test_an_embedding_is_one_visible_view() -> None:
    student, teacher = {"embedding": torch.randn(6, 3)}, {"embedding": torch.randn(6, 5)}
    objective = built(student, teacher)
    expected = masked_views_loss(
        objective.decoder(student["embedding"]), teacher["embedding"], reduction="none"
    )
    torch.testing.assert_close(objective(student, teacher, BATCH), expected)


def test_the_decoder_learns_the_embedding_of_all_views() -> None:
    torch.manual_seed(0)
    views = torch.randn(6, 1, 8).expand(6, 3, 8)
    student, teacher = {"view_embedding": views}, {"embedding": torch.randn(6, 4)}
    objective = built(student, teacher)
    before = float(objective(student, teacher, BATCH).mean().detach())
    optimizer = torch.optim.Adam(objective.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        objective(student, teacher, BATCH).mean().backward()
        optimizer.step()
    assert float(objective(student, teacher, BATCH).mean().detach()) < 0.1 * before


def test_one_embedding_per_view_raises() -> None:
    student = {"embedding": torch.randn(12, 3)}
    with pytest.raises(ValueError, match=r"got \(12, 3\) and \(6, 5\).*student\.input\.views=1"):
        built(student, {"embedding": torch.randn(6, 5)})
