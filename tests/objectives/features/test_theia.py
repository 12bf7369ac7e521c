from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.theia import Theia, theia_loss
from instil.testing import check_objective


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("over", ["image", "patch"])
def test_agrees_with_a_plain_loop(over: str) -> None:
    student, teacher = (
        torch.randn(3, 4, 5, dtype=torch.float64),
        torch.randn(3, 4, 5, dtype=torch.float64),
    )
    values = theia_loss(student, teacher, 0.5, 2.0, 0.25, over, "none")  # type: ignore[arg-type]
    for n in range(3):
        s, t = student[n].numpy(), teacher[n].numpy()
        whole = cosine_distance(s.ravel(), t.ravel())
        each = float(np.mean([cosine_distance(a, b) for a, b in zip(s, t, strict=True)]))
        difference = np.abs(s - t)
        smooth = np.where(difference < 1, difference**2 / 2, difference - 0.5).mean()
        assert np.isclose(
            values[n],
            0.5 * (whole if over == "image" else each) + 2 * smooth + 0.25 * (difference**2).mean(),
            rtol=1e-10,
        )


def test_without_standardization_a_match_is_zero() -> None:
    stage = torch.randn(3, 4, 4, 4)
    for standardize, zero in ((False, True), (True, False)):
        objective = Theia(standardize=standardize)
        objective.build({"features": stage}, {"features": stage})
        assert (
            bool(objective({"features": stage}, {"features": stage}, {}).abs().max() < 1e-6) is zero
        )


def test_an_unknown_cosine_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"over: unknown value.*got 'patches'. Did you mean patch"):
        Theia(over="patches")  # type: ignore[arg-type]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(Theia(over="patch", mse=1.0))


def test_the_squared_difference_alone() -> None:
    check_objective(lambda: Theia(0.0, 0.0, 1.0))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    compiled = torch.compile(theia_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), theia_loss(student, teacher))
