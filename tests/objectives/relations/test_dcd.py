from __future__ import annotations

import math

import numpy as np
import torch

from instil.objectives.relations.dcd import DCD, dcd_loss


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64),
        torch.randn(4, 3, dtype=torch.float64),
    )
    student_values, teacher_values = (
        side.numpy() / np.linalg.norm(side.numpy(), axis=1, keepdims=True)
        for side in (student, teacher)
    )
    scores = np.array(
        [[math.exp(3 * (a @ b) - 0.5) for b in teacher_values] for a in student_values]
    )
    expected = 0.0
    for n in range(4):
        finds, actual = scores[n] / scores[n].sum(), scores[:, n] / scores[:, n].sum()
        expected -= math.log(finds[n])
        expected += 0.7 * sum(p * math.log(p / q) for p, q in zip(actual, finds, strict=True))
    assert np.isclose(float(dcd_loss(student, teacher, 3.0, -0.5, 0.7)), expected / 4)


def test_equal_distributions_in_both_directions_leave_the_cross_entropy() -> None:
    teacher = torch.randn(4, 3, dtype=torch.float64)
    assert torch.isclose(
        dcd_loss(teacher, teacher, 2.0, 0.0, 9.0), dcd_loss(teacher, teacher, 2.0, 0.0, 0.0)
    )
    student = torch.randn(4, 3, dtype=torch.float64)
    assert dcd_loss(student, teacher, 2.0, 0.0, 9.0) > dcd_loss(student, teacher, 2.0, 0.0, 0.0)


def test_the_scale_is_learned_up_to_its_bound() -> None:
    student, teacher = {"embedding": torch.randn(5, 3)}, {"embedding": torch.randn(5, 4)}
    objective = DCD(dim=6, max_scale=5.0)
    objective.build(student, teacher)
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    assert torch.isclose(
        objective(student, teacher, {}), dcd_loss(student_embedding, teacher_embedding, math.e)
    )
    assert {"log_scale", "bias"} <= {name for name, _ in objective.named_parameters()}
    with torch.no_grad():
        objective.log_scale.fill_(3.0)
    assert torch.isclose(
        objective(student, teacher, {}), dcd_loss(student_embedding, teacher_embedding, 5.0)
    )


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(dcd_loss, fullgraph=True, backend="eager")(student, teacher),
        dcd_loss(student, teacher),
    )
