from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.objectives.relations.affinity_mimicking import (
    AffinityMimicking,
    affinity_mimicking_loss,
)


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def test_agrees_with_plain_loops() -> None:
    student, teacher = (3 * torch.randn(4, 4, dtype=torch.float64) for _ in range(2))
    terms = []
    for student_values, teacher_values in (
        (student.numpy(), teacher.numpy()),
        (student.numpy().T, teacher.numpy().T),
    ):
        for a, b in zip(student_values, teacher_values, strict=True):
            p, q = softmax(b), softmax(a)
            terms.append((p * np.log(p / q)).sum())
    assert np.isclose(float(affinity_mimicking_loss(student, teacher)), np.mean(terms), rtol=1e-10)


def test_the_gradient_is_that_of_the_published_cross_entropy() -> None:
    student, teacher = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    (ours,) = torch.autograd.grad(affinity_mimicking_loss(student, teacher), student)
    published = (
        F.cross_entropy(student, teacher.softmax(1))
        + F.cross_entropy(student.T, teacher.T.softmax(1))
    ) / 2
    assert torch.allclose(ours, torch.autograd.grad(published, student)[0], atol=1e-6)


def test_each_side_has_its_own_width_and_scale() -> None:
    sides = [
        {
            "image_embedding": torch.randn(4, width),
            "text_embedding": torch.randn(4, width),
            "logit_scale": torch.tensor([scale]),
        }
        for width, scale in ((3, 4.0), (7, 9.0))
    ]
    similarity = [
        s["logit_scale"]
        * F.normalize(s["image_embedding"], dim=1)
        @ F.normalize(s["text_embedding"], dim=1).T
        for s in sides
    ]
    assert torch.allclose(AffinityMimicking()(*sides, {}), affinity_mimicking_loss(*similarity))


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match="with the same items"):
        affinity_mimicking_loss(torch.zeros(3, 3), torch.zeros(4, 4))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(affinity_mimicking_loss, fullgraph=True, backend="eager")(
        student, teacher
    )
    assert torch.allclose(compiled, affinity_mimicking_loss(student, teacher))
