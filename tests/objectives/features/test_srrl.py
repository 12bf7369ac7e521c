from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from instil.core import Objectives, Outputs
from instil.objectives.features.srrl import SRRL, srrl_loss
from instil.testing import check_objective, sample_outputs


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 3, 3, dtype=torch.float64),
    )
    student_logits, teacher_logits = (
        torch.randn(3, 6, dtype=torch.float64),
        torch.randn(3, 6, dtype=torch.float64),
    )
    expected = []
    for n in range(3):
        feature = (
            sum((float(student[n, c].mean()) - float(teacher[n, c].mean())) ** 2 for c in range(2))
            / 2
        )
        expected.append(
            feature
            + 0.3
            * sum(
                (float(student_logits[n, k]) - float(teacher_logits[n, k])) ** 2 for k in range(6)
            )
            / 6
        )
    assert np.allclose(
        srrl_loss(student, teacher, student_logits, teacher_logits, 0.3, "none"),
        expected,
        rtol=1e-12,
    )
    assert np.isclose(
        float(
            srrl_loss(
                student.mean((2, 3)), teacher.mean((2, 3)), student_logits, teacher_logits, 0.3
            )
        ),
        np.mean(expected),
    )


def test_is_zero_if_the_adapted_features_equal_the_teachers_embedding() -> None:
    head = nn.Linear(5, 3)
    feature = torch.randn(4, 5, 2, 2)
    embedding = feature.mean((2, 3))
    teacher: Outputs = {
        "embedding": embedding,
        "head": (head.weight.detach(), head.bias.detach()),
        "logits": head(embedding).detach(),
    }
    objective = SRRL()
    student: Outputs = {"features": (feature,)}
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    objective.connector[0].weight.data.copy_(torch.eye(5)[:, :, None, None])
    objective.connector[0].bias.data.zero_()
    assert torch.allclose(objective(student, teacher, {}), torch.zeros(4), atol=1e-10)


def test_the_teachers_classifier_is_not_trained() -> None:
    student, teacher, batch = sample_outputs()
    objectives = Objectives({"it": SRRL()})
    objectives.build(student, teacher)
    weight = teacher["head"][0].clone()
    loss = objectives(
        {"features": tuple(stage.requires_grad_() for stage in student["features"])}, teacher, batch
    ).losses["it"]
    loss.backward()
    assert teacher["head"][0].grad is None
    assert torch.equal(weight, teacher["head"][0])
    assert student["features"][-1].grad.abs().sum() > 0


@pytest.mark.parametrize(
    "student", [{"embedding": torch.randn(4, 9)}, {"features": (torch.randn(4, 17, 6),)}]
)
def test_students_of_any_kind(student: Outputs) -> None:
    teacher: Outputs = {
        "embedding": torch.randn(4, 5),
        "head": (torch.randn(3, 5), torch.zeros(3)),
        "logits": torch.randn(4, 3),
    }
    objective = SRRL()
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    assert objective(student, teacher, {}).shape == (4,)


def test_an_unfit_head_shape_or_norm_is_an_error() -> None:
    student, teacher, _ = sample_outputs()
    with pytest.raises(
        ValueError,
        match=r"head: not a classifier.*Expected head \(C, D\), embedding \(N, D\)",
    ):
        SRRL().build(student, teacher | {"embedding": torch.randn(8, 3)})
    with pytest.raises(ValueError, match="srrl_loss of features: the student's shape"):
        srrl_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="got 'group'"):
        SRRL(norm="group")  # type: ignore[arg-type]


def test_contracts() -> None:
    check_objective(lambda: SRRL(logit_weight=3.0))


def test_compiles_whole() -> None:
    arguments = (
        torch.randn(2, 3, 4, 4),
        torch.randn(2, 3, 4, 4),
        torch.randn(2, 5),
        torch.randn(2, 5),
    )
    assert torch.allclose(
        torch.compile(srrl_loss, fullgraph=True, backend="eager")(*arguments), srrl_loss(*arguments)
    )
