from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from instil.objectives.relations.gcrd import GCRD, gcrd_loss


def test_agrees_with_plain_loops() -> None:
    student, teacher = (
        F.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1) for _ in range(2)
    )
    expected = []
    for i, student_values in enumerate(student.numpy()):
        scores = [
            np.exp(student_values @ teacher_values / 0.2) for teacher_values in teacher.numpy()
        ]
        expected.append(-np.log(scores[i] / sum(scores)))
    assert np.isclose(float(gcrd_loss(student, teacher, 0.2)), np.mean(expected), rtol=1e-10)


def test_heads_bring_both_sides_to_one_width() -> None:
    student, teacher = {"embedding": torch.randn(6, 3)}, {"embedding": torch.randn(6, 9)}
    objective = GCRD(dim=4)
    objective.build(student, teacher)
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    assert student_embedding.shape == teacher_embedding.shape == (6, 4)
    assert torch.allclose(torch.linalg.vector_norm(student_embedding, dim=1), torch.ones(6))
    assert torch.allclose(
        objective(student, teacher, {}), gcrd_loss(student_embedding, teacher_embedding)
    )


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(gcrd_loss, fullgraph=True, backend="eager")(student, teacher),
        gcrd_loss(student, teacher),
    )
