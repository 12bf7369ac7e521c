from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.relations.compress import CompRess, compress_loss


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3, 6, dtype=torch.float64),
    )
    anchors = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    expected = []
    for n in range(3):
        likely = []
        for side, rows in zip((student, teacher), anchors, strict=True):
            direction = side[n].numpy() / np.linalg.norm(side[n].numpy())
            powers = np.exp([direction @ row / 0.5 for row in rows.numpy()])
            likely.append(powers / powers.sum())
        expected.append(sum(p * math.log(p / q) for q, p in zip(*likely, strict=True)))
    assert np.allclose(compress_loss(student, teacher, *anchors, 0.5, "none"), expected)
    assert np.isclose(float(compress_loss(student, teacher, *anchors, 0.5)), np.mean(expected))


@pytest.mark.parametrize(
    ("queues", "widths", "parameters"),
    [("two", {"student": 3, "teacher": 5}, 0), ("one", {"teacher": 5}, 2)],
)
def test_what_is_remembered_and_compared(
    queues: str, widths: dict[str, int], parameters: int
) -> None:
    outputs = [{"embedding": torch.randn(4, width)} for width in (3, 5)]
    objective = CompRess(queues, size=6)  # type: ignore[arg-type]
    objective.build(*outputs)
    assert len(list(objective.parameters())) == parameters
    assert {name: objective.queue[name].shape[1] for name in objective.queue.names} == widths
    objective.after_step(objective.state_updates(*outputs, {"image": torch.zeros(4, 1)}))
    student_embedding, teacher_embedding = objective.embed(*outputs)
    for name, side in {"student": student_embedding, "teacher": teacher_embedding}.items():
        if name in widths:
            assert torch.allclose(
                objective.queue[name][:4], side / side.norm(dim=1, keepdim=True), atol=1e-6
            )
    first = objective.queue["student" if queues == "two" else "teacher"]
    assert torch.equal(
        objective(*outputs, {}),
        compress_loss(
            student_embedding, teacher_embedding, first, objective.queue["teacher"], 0.04, "none"
        ),
    )


def test_unknown_queues() -> None:
    with pytest.raises(ValueError, match=r"got 'twoo'\. Did you mean two"):
        CompRess("twoo")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    inputs = torch.randn(3, 4), torch.randn(3, 6), torch.randn(5, 4), torch.randn(5, 6)
    assert torch.allclose(
        torch.compile(compress_loss, fullgraph=True, backend="eager")(*inputs),
        compress_loss(*inputs),
    )
