from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.ickd import ICKD, ickd_loss


def correlation(stage: np.ndarray, form: str) -> np.ndarray:
    channels, positions = stage.shape[0], stage[0].size
    products = np.array(
        [
            [(stage[i] * stage[j]).sum() / positions for j in range(channels)]
            for i in range(channels)
        ]
    )
    return (
        products / np.linalg.norm(products, axis=1, keepdims=True) if form == "code" else products
    )


@pytest.mark.parametrize(("form", "divisor"), [("code", 3), ("paper", 9)])
@pytest.mark.parametrize("grid", [1, 2])
def test_agrees_with_loops_over_channels_and_cells(form: str, divisor: int, grid: int) -> None:
    student, teacher = torch.randn(2, 3, 4, 6).double(), torch.randn(2, 3, 2, 8).double()
    for n, ours in enumerate(ickd_loss(student, teacher, form, grid, "none")):
        total = 0.0
        for i in range(grid):
            for j in range(grid):
                cells = []
                for stage in (student[n].numpy(), teacher[n].numpy()):
                    h, w = stage.shape[1] // grid, stage.shape[2] // grid
                    cells.append(correlation(stage[:, i * h : i * h + h, j * w : j * w + w], form))
                total += ((cells[0] - cells[1]) ** 2).sum() / divisor
        assert float(ours) == pytest.approx(total / grid**2)


def test_only_the_cell_of_a_position_matters() -> None:
    stage = torch.randn(2, 3, 4, 4).double()
    moved = stage.roll(2, 3)
    assert float(ickd_loss(moved, stage)) == pytest.approx(0, abs=1e-12)
    assert ickd_loss(moved, stage, grid=2) > 1e-3
    assert float(ickd_loss(3 * stage, stage)) == pytest.approx(0, abs=1e-12)
    assert ickd_loss(3 * stage, stage, "paper") > 1e-3


def test_invalid_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="Expected the teacher's 3 channels, got 2"):
        ickd_loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"cannot be divided into 2 equal cells.*got 4x5"):
        ickd_loss(torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 4, 4), grid=2)
    with pytest.raises(ValueError, match=r"got 'papers'\. Did you mean paper"):
        ickd_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), "papers")


@pytest.mark.parametrize("form", ["code", "paper"])
def test_any_pair_of_networks(check_pair: Callable[[Objective], None], form: str) -> None:
    check_pair(ICKD(form))  # type: ignore[arg-type]


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(ickd_loss, fullgraph=True, backend="eager")(student, teacher),
        ickd_loss(student, teacher),
    )
