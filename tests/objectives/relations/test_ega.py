from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.ega import EGA, ega_loss


def test_agrees_with_numpys_correlations() -> None:
    student, teacher = (
        torch.randn(5, 7, dtype=torch.float64),
        torch.randn(5, 7, dtype=torch.float64),
    )
    whole = np.corrcoef(np.concatenate([teacher.numpy(), student.numpy()]))
    nodes = np.linalg.norm(whole[:5, 5:] - np.eye(5))
    edges = np.linalg.norm(whole[5:, 5:] - whole[:5, :5])
    assert np.isclose(float(ega_loss(student, teacher, 0.7, 0.2)), 0.7 * nodes + 0.2 * edges)


def test_a_match_leaves_what_samples_have_in_common() -> None:
    teacher = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    common = np.linalg.norm(np.corrcoef(teacher.detach().numpy()) - np.eye(5))
    loss = ega_loss(teacher, teacher.detach())
    assert np.isclose(float(loss.detach()), 0.8 * common)
    assert torch.isfinite(torch.autograd.grad(loss, teacher)[0]).all()


def test_constant_samples_and_other_widths() -> None:
    student = torch.ones(4, 6, requires_grad=True)
    loss = ega_loss(student, torch.randn(4, 6))
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()
    with pytest.raises(
        ValueError, match=r"ega_loss: the student's shape \(4, 6\) is not the teacher's, \(4, 5\)"
    ):
        ega_loss(student, torch.randn(4, 5))


def test_the_student_is_projected() -> None:
    student, teacher = {"embedding": torch.randn(5, 3)}, {"embedding": torch.randn(5, 4)}
    objective = EGA(node=2.0, edge=0.5)
    objective.build(student, teacher)
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    assert torch.equal(
        objective(student, teacher, {}), ega_loss(student_embedding, teacher_embedding, 2.0, 0.5)
    )


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(ega_loss, fullgraph=True, backend="eager")(student, teacher),
        ega_loss(student, teacher),
    )
