from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.afd import AFD, LevelAttention, afd_loss

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def strength(stage: np.ndarray, cells: int) -> np.ndarray:
    """Return the normalised mean square over channels, averaged in cells x cells parts."""
    square, side = (stage**2).mean(0), stage.shape[1] // cells
    parts = [
        square[i * side : (i + 1) * side, j * side : (j + 1) * side].mean()
        for i in range(cells)
        for j in range(cells)
    ]
    return np.array(parts) / np.linalg.norm(parts)


def test_is_the_attended_distance_of_attention_maps() -> None:
    student = [torch.randn(2, 3, 8, 8).double(), torch.randn(2, 5, 4, 4).double()]
    teacher = [torch.randn(2, 4, 4, 4).double(), torch.randn(2, 2, 2, 2).double()]
    attention = torch.rand(2, 2, 2).double()
    for n, ours in enumerate(afd_loss(student, teacher, attention, "none")):
        expected = 0.0
        for t, teacher_map in enumerate(teacher):
            cells = teacher_map.shape[2]
            for s, student_map in enumerate(student):
                difference = strength(student_map[n].numpy(), cells) - strength(
                    teacher_map[n].numpy(), cells
                )
                expected += float(attention[n, t, s]) * float((difference**2).mean())
        assert float(ours) == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_attention_is_a_distribution_over_the_student_levels(norm: str) -> None:
    attend = LevelAttention([3, 5, 4], [6, 2], 8, norm).double()
    student = [torch.randn(4, channels, 2, 2).double() for channels in (3, 5, 4)]
    teacher = [torch.randn(4, channels, 2, 2).double() for channels in (6, 2)]
    attention = attend(student, teacher)
    assert attention.shape == (4, 2, 3)
    assert torch.allclose(attention.sum(2), torch.ones(4, 2).double())
    alone = attend([stage[:1] for stage in student], [stage[:1] for stage in teacher])
    assert torch.allclose(alone, attention[:1]) is (norm == "group")


def test_teacher_levels_of_one_position_have_no_loss() -> None:
    student, teacher = [torch.randn(2, 3, 4, 4)], [torch.randn(2, 3, 1, 1), torch.randn(2, 3, 4, 4)]
    attention = torch.ones(2, 2, 1)
    assert torch.allclose(
        afd_loss(student, teacher, attention), afd_loss(student, teacher[1:], attention[:, 1:])
    )
    with pytest.raises(ValueError, match="Expected a teacher level with more than one position"):
        afd_loss(student, teacher[:1], attention[:, :1])


def test_all_pairs_of_levels_are_matched(features: Features) -> None:
    objective = AFD(width=6)
    objective.build(features("cnn"), features("plain vit"))
    assert sorted(objective.matched) == [(i, j) for i in range(3) for j in range(2)]
    assert objective.plan[0] == "student 0 (4x8x8) <- teacher 0 (16x9): by attention"
    assert objective.adapters[0].student_place.shape == (3, 6)


def test_any_pair_of_networks(
    check_pair: Callable[[Objective], None], nets: tuple[str, str]
) -> None:
    if "one map" in nets:  # one student stage has all the attention, whatever that learns
        pytest.skip("attention has nothing to choose from")
    check_pair(AFD())


def test_compiles_without_graph_breaks() -> None:
    student, teacher, attention = (
        [torch.randn(2, 3, 8, 8)],
        [torch.randn(2, 3, 4, 4)],
        torch.ones(2, 1, 1),
    )
    compiled = torch.compile(afd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, attention), afd_loss(student, teacher, attention)
    )
