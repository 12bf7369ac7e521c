"""Consistency of views against a loop over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.objectives.logits.view_consistency import view_consistency_loss


def test_is_the_mean_divergence_of_all_pairs() -> None:
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    values = view_consistency_loss(logits, 2.0, reduction="none")
    for n in range(3):
        log_p = F.log_softmax(logits[n] / 2, 1)
        pairs = [
            float((log_p[i].exp() * (log_p[i] - log_p[j])).sum())
            for i in range(4)
            for j in range(4)
            if i != j
        ]
        assert np.isclose(float(values[n]), 4 * np.mean(pairs), rtol=1e-10)


def test_equal_views_have_no_loss() -> None:
    assert view_consistency_loss(torch.randn(2, 1, 5).expand(2, 3, 5)).abs() < 1e-6


def test_an_impossible_class_changes_nothing() -> None:
    logits = torch.randn(2, 3, 4)
    excluded = torch.cat([logits, torch.full((2, 3, 1), -torch.inf)], 2).requires_grad_()
    loss = view_consistency_loss(excluded)
    torch.testing.assert_close(loss, view_consistency_loss(logits))
    loss.backward()
    assert excluded.grad is not None
    assert excluded.grad.isfinite().all()


def test_one_view_raises() -> None:
    with pytest.raises(ValueError, match=r"student\.input\.views"):
        view_consistency_loss(torch.randn(2, 1, 4))
