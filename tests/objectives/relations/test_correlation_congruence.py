from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.correlation_congruence import (
    CorrelationCongruence,
    correlation_congruence_loss,
    neighbour_congruence_loss,
)


def correlations(samples: np.ndarray, kernel: str, normalize: bool) -> np.ndarray:
    if normalize:
        samples = samples / np.sqrt((samples**2).sum(1, keepdims=True))
    if kernel == "bilinear":
        return np.array([[a @ b for b in samples] for a in samples])
    return np.array(
        [
            [np.exp(-0.8) * (1 + 0.8 * (a @ b) + 0.8**2 / 2 * (a @ b) ** 2) for b in samples]
            for a in samples
        ]
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kernel", ["gaussian", "bilinear"])
def test_agrees_with_a_plain_loop(kernel: str, normalize: bool) -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 7, dtype=torch.float64),
    )
    difference = correlations(student.numpy(), kernel, normalize) - correlations(
        teacher.numpy(), kernel, normalize
    )
    loss = correlation_congruence_loss(student, teacher, kernel, normalize=normalize)
    assert np.isclose(float(loss), (difference**2).sum() / 25, rtol=1e-10)


def test_the_series_comes_near_the_gaussian() -> None:
    student, teacher = (
        torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    kernels = [(-0.4 * torch.cdist(side, side).square()).exp() for side in (student, teacher)]
    expected = (kernels[0] - kernels[1]).square().mean()
    errors = [
        abs(float(correlation_congruence_loss(student, teacher, order=order) - expected))
        for order in (1, 3, 9)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8


def test_neighbours_in_the_batch() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    terms = [
        sum(
            abs(student[n, d] - teacher[n, d]) * abs(student[n + 1, d] - teacher[n + 1, d])
            for d in range(3)
        )
        for n in range(3)
    ]
    assert torch.isclose(neighbour_congruence_loss(student, teacher), sum(terms) / 3)
    with pytest.raises(
        ValueError, match=r"student's shape \(4, 3\) is not the teacher's, \(4, 2\)"
    ):
        neighbour_congruence_loss(student, teacher[:, :2])


def test_options_and_unknown_kernel() -> None:
    student, teacher = {"embedding": torch.randn(5, 3)}, {"embedding": torch.randn(5, 4)}
    objective = CorrelationCongruence("gaussian", gamma=1.5, order=3)
    expected = correlation_congruence_loss(
        student["embedding"], teacher["embedding"], "gaussian", 1.5, 3
    )
    assert torch.equal(objective(student, teacher, {}), expected)
    with pytest.raises(ValueError, match=r"got 'gauss'\. Did you mean gaussian"):
        correlation_congruence_loss(student["embedding"], teacher["embedding"], "gauss")


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    compiled = torch.compile(correlation_congruence_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), correlation_congruence_loss(student, teacher))
