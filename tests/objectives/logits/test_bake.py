"""BAKE against the power series of its matrix inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.bake import bake_loss, bake_targets


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def affinity(embedding: np.ndarray) -> np.ndarray:
    rows = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    powers = np.exp(rows @ rows.T) * (1 - np.eye(len(rows)))
    return powers / powers.sum(1, keepdims=True)


def test_targets_agree_with_the_series_of_repeated_propagation() -> None:
    probability, embedding = drawn(5, 4).softmax(-1).numpy(), drawn(5, 3, seed=1).numpy()
    step, carried = 0.6 * affinity(embedding), probability
    for _ in range(200):
        carried = step @ carried + 0.4 * probability
    assert np.allclose(
        bake_targets(torch.from_numpy(probability), torch.from_numpy(embedding), 0.6).numpy(),
        carried,
    )


def test_the_loss_is_the_divergence_from_the_targets() -> None:
    logits, embedding = drawn(5, 4), drawn(5, 3, seed=1)
    soft = (logits / 3).softmax(-1)
    target = bake_targets(soft, embedding, 0.5)
    expected = 9 * (target * (target.log() - soft.log())).sum(1).mean()
    assert bake_loss(logits, embedding, 3.0).item() == pytest.approx(expected.item())


def test_the_loss_is_zero_for_omega_zero_and_targets_have_no_gradient() -> None:
    logits, embedding = drawn(5, 4).requires_grad_(), drawn(5, 3, seed=1).requires_grad_()
    assert bake_loss(logits, embedding, omega=0.0).item() == pytest.approx(0.0, abs=1e-12)
    bake_loss(logits, embedding).backward()
    assert logits.grad is not None
    assert embedding.grad is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Expected \(N, C\) and \(N, D\), got \(5, 4\) and \(4, 3\)"
    ):
        bake_loss(drawn(5, 4), drawn(4, 3))
