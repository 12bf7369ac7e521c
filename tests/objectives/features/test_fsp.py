from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.fsp import FSP, fsp_loss, fsp_matrix

SHAPES = ((2, 4, 6), (3, 2, 3), (4, 2, 3))


def maps(count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, *shape, dtype=torch.float64, generator=generator) for shape in SHAPES
    ]


def pooled(stage: np.ndarray, take: Callable[[np.ndarray], float]) -> np.ndarray:
    """Reduce each 2x2 cell to one number."""
    return np.array(
        [[take(stage[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]) for j in range(3)] for i in range(2)]
    )


@pytest.mark.parametrize(("pool", "take"), [("max", np.max), ("average", np.mean)])
def test_the_matrix_is_the_mean_product_over_positions(
    pool: str, take: Callable[[np.ndarray], float]
) -> None:
    first, second, _ = maps()
    ours = fsp_matrix(first, second, pool)  # type: ignore[arg-type]
    for n in range(2):
        for i in range(2):
            for j in range(3):
                small = pooled(first[n, i].numpy(), take)
                expected = (
                    sum(small[h, w] * float(second[n, j, h, w]) for h in range(2) for w in range(3))
                    / 6
                )
                assert float(ours[n, i, j]) == pytest.approx(expected)


def test_the_forms_are_mean_sum_and_column_lengths() -> None:
    student, teacher = maps(), maps(seed=1)
    expected = {"mean": np.zeros(2), "paper": np.zeros(2), "columns": np.zeros(2)}
    for k in (0, 1):
        difference = (
            fsp_matrix(student[k], student[k + 1]) - fsp_matrix(teacher[k], teacher[k + 1])
        ).numpy()
        for n in range(2):
            expected["mean"][n] += (difference[n] ** 2).mean()
            expected["paper"][n] += (difference[n] ** 2).sum()
            expected["columns"][n] += sum(
                np.sqrt((difference[n, :, j] ** 2).sum()) for j in range(difference.shape[2])
            )
    for form, values in expected.items():
        assert np.allclose(fsp_loss(student, teacher, form=form, reduction="none"), values)
    assert fsp_loss(student, teacher).item() == pytest.approx(expected["mean"].mean())


def test_invalid_inputs_are_errors(features: Callable[..., dict[str, tuple[Tensor, ...]]]) -> None:
    with pytest.raises(ValueError, match="needs two pairs of stages, not 1"):
        fsp_loss(maps()[:1], maps()[:1])
    with pytest.raises(ValueError, match="needs two pairs of stages, not 1"):
        FSP(pairs=[[1, 1]]).build(features("cnn"), features("cnn"))
    with pytest.raises(ValueError, match=r"fsp_loss: the student's shape \(2, 3, 4\)"):
        fsp_loss(maps()[1:], maps()[:2])
    with pytest.raises(ValueError, match="form: unknown value"):
        fsp_loss(maps(), maps(), form="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'maximum'\. Did you mean max"):
        fsp_loss(maps(), maps(), pool="maximum")  # type: ignore[arg-type]


def test_pairs_are_ordered_from_shallow_to_deep(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    values = []
    for pairs in ([[0, 0], [2, 2]], [[2, 2], [0, 0]]):
        objective = FSP(pairs=pairs)
        objective.build(student, teacher)
        values.append(objective(student, teacher, {}))
    assert torch.equal(*values)


def test_any_pair_of_networks_with_several_levels(
    check_pair: Callable[[Objective], None], nets: tuple[str, str]
) -> None:
    if "one map" in nets:
        with pytest.raises(ValueError, match="FSP goes from one stage to the next"):
            check_pair(FSP())
    else:
        check_pair(FSP())


def test_compiles_without_graph_breaks() -> None:
    student, teacher = maps(), maps(seed=1)
    assert torch.allclose(
        torch.compile(fsp_loss, fullgraph=True, backend="eager")(student, teacher),
        fsp_loss(student, teacher),
    )
