"""Fused predictions of 2DPASS: loss, gradients, and what the student learns from."""

from __future__ import annotations

import numpy as np
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
