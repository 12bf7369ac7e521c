from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.relations.skd_pairwise import SKDPairwise, skd_pairwise_loss


def nodes(image: np.ndarray, patch: tuple[int, int], average: bool) -> np.ndarray:
    """Return pooled nodes (nodes, C) of an image (C, H, W); the last ones are smaller."""
    actual = []
    for row in range(0, image.shape[1], patch[0]):
        for column in range(0, image.shape[2], patch[1]):
            cell = image[:, row : row + patch[0], column : column + patch[1]].reshape(
                len(image), -1
            )
            actual.append(cell.mean(1) if average else cell.max(1))
    return np.stack(actual)


@pytest.mark.parametrize(
    ("pooling", "patch"),
    [("max", (2, 2)), ("average", (2, 2)), ("max", (3, 2)), ("average", (1, 1))],
)
def test_agrees_with_plain_loops(pooling: str, patch: tuple[int, int]) -> None:
    student, teacher = (
        torch.randn(2, 3, 5, 4, dtype=torch.float64),
        torch.randn(2, 6, 5, 4, dtype=torch.float64),
    )
    expected = []
    for pair in zip(student.numpy(), teacher.numpy(), strict=True):
        student_values, teacher_values = (
            nodes(image, patch, pooling == "average") for image in pair
        )
        total = 0.0
        for i in range(len(student_values)):
            for j in range(len(student_values)):
                a, b = (
                    v[i] @ v[j] / np.sqrt((v[i] @ v[i]) * (v[j] @ v[j]))
                    for v in (student_values, teacher_values)
                )
                total += (a - b) ** 2
        expected.append(total / len(student_values) ** 2)
    assert np.allclose(
        skd_pairwise_loss(student, teacher, patch, pooling, reduction="none"), expected, rtol=1e-10
    )  # type: ignore[arg-type]
    assert np.isclose(float(skd_pairwise_loss(student, teacher, patch, pooling)), np.mean(expected))


def test_scale_is_a_share_of_the_map() -> None:
    sides = [{"features": torch.randn(2, channels, 8, 6)} for channels in (3, 5)]
    objective = SKDPairwise(scale=0.5)
    objective.build(*sides)
    expected = skd_pairwise_loss(
        sides[0]["features"], sides[1]["features"], (4, 3), reduction="none"
    )
    assert torch.allclose(objective(*sides, {}), expected)


def test_the_length_has_no_gradient_by_default() -> None:
    """Along its own direction a feature has a gradient only where its length is taken for a
    constant.
    """
    teacher = torch.randn(2, 4, 2, 2)
    for through in (True, False):
        student = torch.randn(
            2, 4, 2, 2, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        (gradient,) = torch.autograd.grad(
            skd_pairwise_loss(student, teacher, (1, 1), through_length=through), student
        )
        along = (gradient * student).sum(1)
        assert (along.abs().max() < 1e-6) == through


def test_dead_positions_have_no_gradient() -> None:
    student = torch.randn(2, 4, 4, 4)
    student[:, :, 0] = 0
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(
        skd_pairwise_loss(student, torch.randn(2, 4, 4, 4), (1, 1)), student
    )
    assert torch.isfinite(gradient).all()
    assert gradient[:, :, 0].abs().sum() == 0
    assert gradient[:, :, 1].abs().sum() > 0


@pytest.mark.parametrize("shapes", [((5, 8, 8), (17, 6)), ((16, 9), (7, 8, 8)), ((17, 4), (17, 8))])
def test_tokens_on_either_side(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    student, teacher = ({"features": (torch.randn(3, *shape),)} for shape in shapes)
    objective = SKDPairwise()
    objective.build(student, teacher)
    values = objective(student, teacher, {})
    assert values.shape == (3,)
    assert (values > 0).all()


def test_errors_are_clear() -> None:
    one = {"features": torch.randn(2, 3, 8, 8)}
    with pytest.raises(ValueError, match="patches of 8x8 leave one node of a map"):
        SKDPairwise(scale=1.0).build(one, one)
    with pytest.raises(ValueError, match=r"pooling: unknown value.*got 'mean'"):
        SKDPairwise(pooling="mean")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    compiled: Tensor = torch.compile(skd_pairwise_loss, fullgraph=True, backend="eager")(
        student, teacher
    )
    assert torch.allclose(compiled, skd_pairwise_loss(student, teacher))
