from __future__ import annotations

import torch

from instil.objectives.relations.relational_representation import RelationalRepresentation
from instil.objectives.relations.seed import seed_loss


def test_it_is_seed_behind_two_heads() -> None:
    outputs = [{"embedding": torch.randn(4, width)} for width in (3, 5)]
    objective = RelationalRepresentation(dim=6, size=7)
    objective.build(*outputs)
    assert [
        name for name, parameter in objective.named_parameters() if parameter.requires_grad
    ] == [
        "connection.student.weight",
        "connection.student.bias",
    ], "no target comes towards the student"
    assert objective.queue["teacher"].shape == (7, 6)
    student_embedding, teacher_embedding = objective.embed(*outputs)
    expected = seed_loss(
        student_embedding, teacher_embedding, objective.queue["teacher"], 0.1, 0.02, "none"
    )
    assert torch.equal(objective(*outputs, {}), expected)
    batch = {"index": torch.arange(4)}
    objective.after_step(objective.state_updates(*outputs, {**batch, "image": torch.zeros(4, 1)}))
    assert torch.allclose(objective.queue["teacher"][:4], teacher_embedding, atol=1e-6)
