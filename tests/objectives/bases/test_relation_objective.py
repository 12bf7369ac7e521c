from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch
from instil.modules.adapters import NormalizedProjections
from instil.objectives.bases.relation_objective import RelationObjective
from instil.objectives.relations.ega import EGA
from instil.objectives.relations.gcrd import GCRD


class Difference(RelationObjective):
    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return (student.square().sum(1) - teacher.square().sum(1)).abs()


def test_the_embedding_comes_before_the_logits_and_may_be_a_map() -> None:
    student, teacher = (
        {"logits": torch.randn(5, 3)},
        {"embedding": torch.randn(5, 2, 2).bfloat16(), "logits": torch.randn(5, 3)},
    )
    objective = Difference()
    objective.resolve(student, teacher)
    student_values, teacher_values = objective.read(student, teacher)
    assert torch.equal(student_values, student["logits"])
    assert teacher_values.shape == (5, 4)
    assert teacher_values.dtype == torch.float32
    assert torch.equal(
        objective(student, teacher, {}), objective.loss(student_values, teacher_values, {})
    )


def test_heads_give_unit_vectors_of_one_width() -> None:
    objective = GCRD(dim=6)
    student, teacher = {"embedding": torch.randn(5, 3)}, {"embedding": torch.randn(5, 4)}
    objective.build(student, teacher)
    assert isinstance(objective.connection, NormalizedProjections)
    for name, side, embedded in zip(
        ("student", "teacher"), (student, teacher), objective.embed(student, teacher), strict=True
    ):
        head = getattr(objective.connection, name)
        expected = side["embedding"] @ head.weight.T + head.bias
        assert torch.allclose(embedded, expected / expected.norm(dim=1, keepdim=True), atol=1e-6)


def test_a_projection_is_learned_where_the_widths_differ() -> None:
    for width, count in ((3, 2), (4, 0)):
        objective = EGA()
        student, teacher = {"embedding": torch.randn(5, width)}, {"embedding": torch.randn(5, 4)}
        objective.build(student, teacher)
        student_embedding, teacher_embedding = objective.embed(student, teacher)
        assert student_embedding.shape == (5, 4)
        assert torch.equal(teacher_embedding, teacher["embedding"])
        assert len(list(objective.parameters())) == count
