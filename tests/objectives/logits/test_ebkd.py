from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.logits.ebkd import EBKD, ebkd_loss, ebkd_weights
from instil.objectives.logits.kd import kd_loss


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def test_agrees_with_a_plain_loop() -> None:
    student, teachers = (
        torch.randn(3, 5, dtype=torch.float64),
        2 * torch.randn(4, 3, 5, dtype=torch.float64),
    )
    values = ebkd_loss(student, teachers, 3.0, "none")
    for n in range(3):
        entropies = [
            -sum(p * np.log(p) for p in softmax(teacher[n].numpy())) for teacher in teachers
        ]
        expected = 0.0
        for teacher, entropy in zip(teachers, entropies, strict=True):
            p, q = softmax(teacher[n].numpy() / 3), softmax(student[n].numpy() / 3)
            expected += (1 - entropy / sum(entropies)) / 3 * 9 * sum(p * np.log(p / q))
        assert np.isclose(values[n], expected, rtol=1e-10)
    assert torch.allclose(ebkd_loss(student, teachers, 3.0), values.mean())


def test_the_more_confident_teacher_has_the_larger_weight() -> None:
    teachers = torch.tensor([[[5.0, 0, 0]], [[1.0, 0, 0]], [[0.0, 0, 0]]])
    weights = ebkd_weights(teachers).squeeze(1)
    assert (weights.diff() < 0).all()
    assert torch.isclose(weights.sum(), torch.tensor(1.0))


def test_teachers_without_entropy_have_equal_weights() -> None:
    sure = torch.tensor([[[1e4, 0.0, 0.0]], [[0.0, 1e4, 0.0]]])
    assert ebkd_weights(sure).tolist() == [[0.5], [0.5]]


def test_one_teacher_is_kd() -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.allclose(ebkd_loss(student, teacher[None], 2.0), kd_loss(student, teacher, 2.0))
    batch = {"x": torch.zeros(4)}
    alone = EBKD(2.0)({"logits": student}, {"logits": teacher}, batch)
    twice = EBKD(2.0)(
        {"logits": student},
        {"logits": teacher, "members": ({"logits": teacher}, {"logits": teacher})},
        batch,
    )
    assert torch.allclose(alone, twice)


def test_positions_are_items() -> None:
    student, teachers = torch.randn(2, 3, 5), torch.randn(2, 2, 3, 5)
    assert torch.allclose(
        ebkd_loss(student, teachers, reduction="none").flatten(),
        ebkd_loss(student.flatten(0, 1), teachers.flatten(1, 2), reduction="none"),
    )


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(K, \*\(4, 5\)\)"):
        ebkd_loss(torch.zeros(4, 5), torch.zeros(4, 5))


def test_compiles_without_graph_breaks() -> None:
    student, teachers = torch.randn(4, 5), torch.randn(3, 4, 5)
    compiled = torch.compile(ebkd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teachers), ebkd_loss(student, teachers))
