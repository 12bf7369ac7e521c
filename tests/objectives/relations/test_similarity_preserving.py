from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.similarity_preserving import (
    SimilarityPreserving,
    similarity_preserving_loss,
)
from instil.testing import check_objective


def similarities(stage: np.ndarray, norm: float) -> np.ndarray:
    actual = np.array([[(a * b).sum() for b in stage] for a in stage])
    return np.array([row / (np.abs(row) ** norm).sum() ** (1 / norm) for row in actual])


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
def test_agrees_with_a_plain_loop(norm: float) -> None:
    student, teacher = (
        torch.randn(5, 3, 4, 4, dtype=torch.float64),
        torch.randn(5, 17, 6, dtype=torch.float64),
    )
    difference = similarities(student.numpy(), norm) - similarities(teacher.numpy(), norm)
    assert np.isclose(
        float(similarity_preserving_loss(student, teacher, norm)),
        (difference**2).sum() / 25,
        rtol=1e-10,
    )


def test_the_scale_does_not_matter() -> None:
    student = torch.randn(5, 3, 4, 4)
    assert similarity_preserving_loss(student, -20 * student) < 1e-12


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("size", [0, 1, 4])
def test_value_and_gradient_are_finite(scale: float, size: int) -> None:
    student = (torch.randn(size, 64, 16, 16) * scale).requires_grad_()
    loss = similarity_preserving_loss(student, torch.randn(size, 8, 4, 4) * 1e4)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_half_precision_is_raised() -> None:
    student, teacher = torch.randn(4, 3, 8, 8), torch.randn(4, 5, 8, 8)
    loss = similarity_preserving_loss(student.bfloat16(), teacher.bfloat16())
    assert loss.dtype == torch.float32
    assert torch.isclose(loss, similarity_preserving_loss(student, teacher), rtol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            similarity_preserving_loss(student, teacher),
            similarity_preserving_loss(student, teacher),
        )
        assert similarity_preserving_loss(student, teacher).dtype == torch.float32


@pytest.mark.parametrize(("student", "teacher"), [("cnn", "vit"), ("vit", "cnn")])
def test_maps_and_tokens(student: str, teacher: str) -> None:
    levels = {
        "cnn": tuple(torch.randn(4, *s) for s in ((3, 8, 8), (5, 4, 4))),
        "vit": tuple(torch.randn(4, 17, 6) for _ in range(4)),
    }
    objective = SimilarityPreserving()
    objective.build({"features": levels[student]}, {"features": levels[teacher]})
    loss = objective({"features": levels[student]}, {"features": levels[teacher]}, {})
    terms = [
        similarity_preserving_loss(levels[student][i], levels[teacher][j])
        for i, j in objective.matched
    ]
    assert len(terms) == 2
    assert torch.isclose(loss, torch.stack(terms).sum())


def test_contracts() -> None:
    check_objective(SimilarityPreserving)


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    compiled = torch.compile(similarity_preserving_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), similarity_preserving_loss(student, teacher))
