from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.relations.seed import SEED, seed_loss


def softmax(scores: list[float]) -> np.ndarray:
    powers = np.exp(np.array(scores) - max(scores))
    return powers / powers.sum()


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3, 4, dtype=torch.float64),
    )
    queue = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
    student_values, teacher_values = (
        side.numpy() / np.linalg.norm(side.numpy(), axis=1, keepdims=True)
        for side in (student, teacher)
    )
    expected = []
    for n in range(3):
        anchors = [teacher_values[n], *queue.numpy()]
        q, p = (
            softmax([student_values[n] @ a / 0.3 for a in anchors]),
            softmax([teacher_values[n] @ a / 0.1 for a in anchors]),
        )
        expected.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    assert np.allclose(seed_loss(student, teacher, queue, 0.3, 0.1, "none"), expected)
    assert np.isclose(float(seed_loss(student, teacher, queue, 0.3, 0.1)), np.mean(expected))


def test_the_queue_holds_the_last_teacher_embeddings() -> None:
    objective = SEED(size=6)
    outputs = [{"embedding": torch.randn(4, width)} for width in (3, 5)]
    objective.build(*outputs)
    assert not objective.couples
    before = objective.queue["teacher"].clone()
    batch = {"valid": torch.tensor([True, True, False, True])}
    updates = objective.state_updates(*outputs, batch)
    assert torch.equal(objective.queue["teacher"], before)
    objective.after_step(updates)
    counted = outputs[1]["embedding"][batch["valid"]]
    assert torch.allclose(
        objective.queue["teacher"][:3], counted / counted.norm(dim=1, keepdim=True), atol=1e-6
    )
    assert torch.equal(objective.queue["teacher"][3:], before[3:])
    student_embedding, teacher_embedding = objective.embed(*outputs)
    assert torch.equal(
        objective(*outputs, batch),
        seed_loss(
            student_embedding, teacher_embedding, objective.queue["teacher"], 0.2, 0.01, "none"
        ),
    )
    objective.after_step({})


def test_a_wrong_width_and_reduction() -> None:
    with pytest.raises(
        ValueError, match=r"seed_loss: the student's shape \(2, 3\) is not the teacher's, \(2, 4\)"
    ):
        seed_loss(torch.randn(2, 3), torch.randn(2, 4), torch.randn(5, 4))
    with pytest.raises(
        ValueError, match=r"^reduction: unknown value\. Expected one of mean, none, got 'sum'"
    ):
        seed_loss(torch.randn(2, 4), torch.randn(2, 4), torch.randn(5, 4), reduction="sum")


def test_compiles_whole() -> None:
    student, teacher, queue = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(seed_loss, fullgraph=True, backend="eager")(student, teacher, queue),
        seed_loss(student, teacher, queue),
    )
