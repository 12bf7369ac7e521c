"""MFT against a plain loop, and properties of its correction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.mft import MFT, correct_probs, mft_loss


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    target = teacher.argmax(-1)
    target[:3] = (target[:3] + 1) % 5
    return student, teacher, target


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


@pytest.mark.parametrize(("threshold", "temperature"), [(0.2, 1.0), (0.6, 2.0), (0.0, 1.0)])
def test_equals_the_formula(threshold: float, temperature: float) -> None:
    student, teacher, target = case()
    expected = []
    for s, t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        if p.argmax() == y:
            share = (min(1, p[y] + threshold) - p[y]) / (1 - p[y] + 1e-7)
        else:
            share = (p.max() - p[y] + threshold) / (1 + p.max() - p[y] + 1e-7)
        corrected = [(1 - share) * a + share * (i == y) for i, a in enumerate(p)]
        expected.append(
            temperature**2
            * sum(a * np.log(a / b) for a, b in zip(corrected, q, strict=True) if a > 0)
        )
    values = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        mft_loss(student, teacher, target, threshold, temperature, "none"), values
    )
    torch.testing.assert_close(
        MFT(threshold, temperature)({"logits": student}, {"logits": teacher}, {"label": target}),
        values,
    )


def test_the_label_leads_by_the_threshold_and_the_others_keep_their_ratios() -> None:
    _, teacher, target = case()
    before = teacher.softmax(-1)
    after = correct_probs(before, target, 0.3)
    torch.testing.assert_close(after.sum(-1), torch.ones(6, dtype=torch.float64))
    label = torch.nn.functional.one_hot(target, 5).bool()
    lead = after[label] - after.masked_fill(label, 0).amax(-1)
    torch.testing.assert_close(
        lead[:3], torch.full((3,), 0.3, dtype=torch.float64), rtol=1e-5, atol=1e-6
    )
    more = after[label] - before[label]
    torch.testing.assert_close(
        more[3:], (before[label][3:] + 0.3).clamp_max(1) - before[label][3:], rtol=1e-5, atol=1e-6
    )
    others = [
        (values / values.sum(-1, keepdim=True))
        for values in (after.masked_fill(label, 0), before.masked_fill(label, 0))
    ]
    torch.testing.assert_close(*others)


def test_a_confident_teacher_is_finite() -> None:
    sure = torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]])
    student = (-sure).requires_grad_()
    values = mft_loss(student, sure, torch.tensor([0, 0]), threshold=0.5, reduction="none")
    assert values.isfinite().all()
    assert torch.autograd.grad(values.sum(), student)[0].isfinite().all()


def test_items_without_a_label_do_not_count() -> None:
    student, teacher, target = case()
    half = torch.where(torch.arange(6) < 4, target, -100)
    torch.testing.assert_close(
        mft_loss(student, teacher, half), mft_loss(student[:4], teacher[:4], target[:4])
    )


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(mft_loss, fullgraph=True, backend="eager")(*case()), mft_loss(*case())
    )
