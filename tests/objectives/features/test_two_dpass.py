"""Fused predictions of 2DPASS: loss, gradients, and what the student learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from instil.objectives.features.two_dpass import TwoDPASS, two_dpass_loss


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def test_is_cross_entropy_plus_divergence() -> None:
    fused, student = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    target = torch.tensor([2, 0, -100, 1])
    values = two_dpass_loss(fused, student, target, 0.5, reduction="none")
    for n in range(4):
        p, q = log_softmax(fused[n].numpy()), log_softmax(student[n].numpy())
        expected = 0.5 * (np.exp(p) * (p - q)).sum()
        if target[n] >= 0:
            expected -= p[target[n]]
        assert np.isclose(float(values[n]), expected, rtol=1e-10)


def test_the_divergence_does_not_change_the_fused_prediction() -> None:
    fused = torch.randn(2, 3, requires_grad=True)
    student = torch.randn(2, 3, requires_grad=True)
    two_dpass_loss(fused, student, torch.tensor([-100, -100])).backward()
    assert fused.grad is not None
    assert student.grad is not None
    assert fused.grad.abs().sum() == 0
    assert student.grad.abs().sum() > 0


def test_the_fusion_reads_both_embeddings() -> None:
    torch.manual_seed(0)
    student = {"logits": torch.randn(5, 3), "embedding": torch.randn(5, 4)}
    teacher = {"embedding": torch.randn(5, 6)}
    objective = TwoDPASS(width=8)
    objective.build(student, teacher)
    batch = {"label": torch.tensor([0, 1, 2, 0, -100])}
    loss = objective(student, teacher, batch)
    assert loss.shape == (5,)
    for side, outputs in (("student", student), ("teacher", teacher)):
        changed = dict(outputs, embedding=outputs["embedding"] + 1)
        sides = {"student": student, "teacher": teacher, side: changed}
        assert (objective(sides["student"], sides["teacher"], batch) != loss).all(), side


def test_the_fused_classifier_learns_the_labels() -> None:
    torch.manual_seed(0)
    label = torch.arange(60) % 3
    student = {"logits": torch.zeros(60, 3), "embedding": torch.randn(60, 4)}
    teacher = {"embedding": torch.nn.functional.one_hot(label, 6).float()}
    objective = TwoDPASS(width=8)
    objective.build(student, teacher)
    optimizer = torch.optim.Adam(objective.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        objective(student, teacher, {"label": label}).mean().backward()
        optimizer.step()
    fused = objective.fusion(student["embedding"], teacher["embedding"])
    assert (fused.argmax(1) == label).float().mean() > 0.95


def sides_with_levels() -> tuple[dict[str, Any], dict[str, Any]]:
    """Student of point sets and teacher of images, with two levels each."""
    torch.manual_seed(0)
    student = {
        "logits": torch.randn(5, 3),
        "embedding": torch.randn(5, 4),
        "positions": torch.randn(5, 9, 3),
        "features": (torch.randn(5, 9, 4), torch.randn(5, 9, 6)),
    }
    teacher = {
        "embedding": torch.randn(5, 6),
        "features": (torch.randn(5, 5, 4, 4), torch.randn(5, 7, 2, 2)),
    }
    return student, teacher


def built(levels: Any) -> TwoDPASS:
    student, teacher = sides_with_levels()
    torch.manual_seed(1)
    objective = TwoDPASS(width=8, levels=levels)
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    return objective


def test_levels_add_the_mean_of_their_losses() -> None:
    student, teacher = sides_with_levels()
    batch = {"label": torch.tensor([0, 1, 2, 0, -100])}
    objective = built("auto")
    assert objective.matched == [(0, 0), (1, 1)]
    assert "fusion of maxima" in objective.plan[0]
    expected = built("none")(student, teacher, batch)
    for level, fusion in enumerate(objective.level_fusions):
        points = student["features"][level].amax(1)
        fused, predicted = fusion(points, teacher["features"][level].amax((2, 3)))
        loss = two_dpass_loss(fused, predicted, batch["label"], 1.0, reduction="none")
        log_p = predicted.log_softmax(1)
        for n in range(4):
            loss = loss - log_p[n, batch["label"][n]] * torch.eye(5)[n]
        expected = expected + loss / 2
    torch.testing.assert_close(objective(student, teacher, batch), expected)


def test_a_level_teaches_the_points_of_its_level_only() -> None:
    student, teacher = sides_with_levels()
    levels = tuple(level.requires_grad_() for level in student["features"])
    objective = built([[1, 0]])
    batch = {"label": torch.tensor([0, 1, 2, 0, -100])}
    objective(student | {"features": levels}, teacher, batch).sum().backward()
    assert levels[0].grad is None
    assert levels[1].grad is not None
    # The unlabelled sample learns from the divergence.
    assert levels[1].grad.abs().sum((1, 2)).gt(0).all()


def test_the_fusion_of_embeddings_does_not_depend_on_levels() -> None:
    assert built("none").reads == {"student": ("logits", "embedding"), "teacher": ("embedding",)}
    weights = built("none").state_dict()
    with_levels = built("auto").state_dict()
    assert all(torch.equal(value, with_levels[key]) for key, value in weights.items())


def test_levels_need_features() -> None:
    student, teacher = sides_with_levels()
    del teacher["features"]
    with pytest.raises(ValueError, match="TwoDPASS needs features of the teacher"):
        TwoDPASS(levels="auto").resolve(student, teacher)


def test_embeddings_of_tokens_are_an_error() -> None:
    outputs = {"logits": torch.zeros(2, 6, 5), "embedding": torch.zeros(2, 6, 8)}
    with pytest.raises(ValueError, match=r"Expected \(N, D\) of the student, got \(2, 6, 8\)"):
        TwoDPASS().build(outputs, {"embedding": torch.zeros(2, 4)})
