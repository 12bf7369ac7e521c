from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from instil.objectives.relations.dsd import DSD, csd_loss, psd_loss


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values)


def stages(channels: tuple[int, ...], size: int = 4) -> list[torch.Tensor]:
    return [torch.randn(2, count, size, size, dtype=torch.float64) for count in channels]


def test_residual_attention_agrees_with_plain_loops() -> None:
    student, teacher = stages((2, 3, 4)), stages((5, 6, 7))
    expected = []
    for n in range(2):
        terms = []
        for i, j in itertools.combinations(range(3), 2):
            maps = [
                [unit((side[k][n].numpy() ** 2).mean(0).ravel()) for k in (i, j)]
                for side in (student, teacher)
            ]
            student_values, teacher_values = (unit(later - earlier) for earlier, later in maps)
            terms.append(((student_values - teacher_values) ** 2).mean())
        expected.append(np.mean(terms))
    assert np.allclose(psd_loss(student, teacher, reduction="none"), expected, rtol=1e-8)


@pytest.mark.parametrize("pool", [1, 2])
def test_category_correlation_agrees_with_plain_loops(pool: int) -> None:
    student, teacher = (torch.randn(2, 3, 4, 6, dtype=torch.float64) for _ in range(2))
    expected = []
    for pair in zip(student.numpy(), teacher.numpy(), strict=True):
        correlations = []
        for image in pair:
            cells = image.reshape(3, 4 // pool, pool, 6 // pool, pool).mean((2, 4)).reshape(3, -1)
            shares = [np.exp(row / 4) / np.exp(row / 4).sum() for row in cells]
            correlations.append(np.array([[a @ b for b in shares] for a in shares]))
        expected.append(((correlations[0] - correlations[1]) ** 2).mean())
    assert np.allclose(
        csd_loss(student, teacher, pool=pool, reduction="none"), expected, rtol=1e-10
    )


def test_stages_of_several_sizes_come_to_the_smallest() -> None:
    student, teacher = [stages((3,), 8)[0], stages((4,))[0]], stages((5, 6))
    pooled = [student[0].unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5)), student[1]]
    assert torch.allclose(psd_loss(student, teacher), psd_loss(pooled, teacher))


def test_forward_weighs_both() -> None:
    sides = [
        {
            "features": tuple(stages(channels)),
            "logits": torch.randn(2, 4, 4, 5, dtype=torch.float64),
        }
        for channels in ((2, 3), (4, 5))
    ]
    objective = DSD(pixel=2.0, category=3.0, pairs=[[0, 0], [1, 1]])
    objective.build(*sides)
    logits = [side["logits"].permute(0, 3, 1, 2) for side in sides]
    expected = 2 * psd_loss(
        sides[0]["features"], sides[1]["features"], reduction="none"
    ) + 3 * csd_loss(*logits, reduction="none")
    assert torch.allclose(objective(*sides, {}), expected)


def test_errors_are_clear() -> None:
    sides = [{"features": tuple(stages((2,))), "logits": torch.randn(2, 4, 4, 5)} for _ in range(2)]
    with pytest.raises(
        ValueError, match="the same number on both sides, at least two, got 1 and 1"
    ):
        DSD().build(*sides)
    with pytest.raises(
        ValueError, match=r"logits \(N, H, W, C\) or \(N, D, H, W, C\), got shape \(2, 5\)"
    ):
        DSD().build(*(side | {"logits": torch.randn(2, 5)} for side in sides))
    with pytest.raises(ValueError, match="the student has 3 channels, the teacher 4"):
        csd_loss(torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 4))


def test_compiles_whole() -> None:
    student, teacher = stages((2, 3)), stages((4, 5))
    assert torch.allclose(
        torch.compile(psd_loss, fullgraph=True, backend="eager")(student, teacher),
        psd_loss(student, teacher),
    )
    student, teacher = stages((3,)), stages((3,))
    assert torch.allclose(
        torch.compile(csd_loss, fullgraph=True, backend="eager")(student[0], teacher[0]),
        csd_loss(student[0], teacher[0]),
    )
