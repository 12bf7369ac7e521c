"""MLKD against plain loops, level by level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.mlkd import MLKD, mlkd_batch_loss, mlkd_class_loss, mlkd_loss


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 4, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher


def softmax(logits: Tensor, temperature: float) -> np.ndarray:
    powers = np.exp(logits.numpy() / temperature)
    return powers / powers.sum(1, keepdims=True)


def test_levels_equal_the_formulas() -> None:
    student, teacher = pair()
    p, q = softmax(teacher, 3.0), softmax(student, 3.0)
    batch = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(5) for j in range(5)) / 5
    classes = (
        sum((p[:, i] @ p[:, j] - q[:, i] @ q[:, j]) ** 2 for i in range(4) for j in range(4)) / 4
    )
    torch.testing.assert_close(mlkd_batch_loss(student, teacher, 3.0), torch.tensor(batch))
    torch.testing.assert_close(mlkd_class_loss(student, teacher, 3.0), torch.tensor(classes))
    whole = kd_loss(student, teacher, 3.0) + 0.5 * batch + 2.0 * classes
    torch.testing.assert_close(mlkd_loss(student, teacher, [3.0], 0.5, 2.0), whole)


@pytest.mark.parametrize(
    ("count", "temperatures"), [(5, [2.0, 3.0, 4.0, 5.0, 6.0]), (2, [2.0, 6.0]), (1, [2.0])]
)
def test_temperatures_are_evenly_spaced(count: int, temperatures: list[float]) -> None:
    student, teacher = pair()
    loss = MLKD(count=count)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(loss, mlkd_loss(student, teacher, temperatures))


def test_pixels_are_items_and_their_order_does_not_matter() -> None:
    student, teacher = pair()
    order = torch.tensor([3, 1, 0, 2, 4])
    torch.testing.assert_close(
        mlkd_loss(student[order], teacher[order]), mlkd_loss(student, teacher)
    )
    torch.testing.assert_close(
        mlkd_loss(student[:4].reshape(2, 2, 4), teacher[:4].reshape(2, 2, 4)),
        mlkd_loss(student[:4], teacher[:4]),
    )


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        mlkd_loss(torch.zeros(3, 1), torch.zeros(3, 1))


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(mlkd_loss, fullgraph=True, backend="eager")(*pair()), mlkd_loss(*pair())
    )
