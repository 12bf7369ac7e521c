from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.review_kd import AttentionFusion, ReviewKD, hcl_loss
from instil.testing import check_objective


def pooled(image: np.ndarray, size: int) -> np.ndarray:
    """Average over cells of size x size; the sides are multiples of it."""
    cell = image.shape[0] // size
    return np.array(
        [
            [
                image[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell].mean()
                for j in range(size)
            ]
            for i in range(size)
        ]
    )


@pytest.mark.parametrize(
    ("side", "levels"), [(8, (4, 2, 1)), (4, (4, 2, 1)), (2, (4, 2, 1)), (1, (4, 2, 1)), (8, (2,))]
)
def test_hcl_agrees_with_a_plain_loop(side: int, levels: tuple[int, ...]) -> None:
    student, teacher = (
        torch.randn(3, 2, side, side, dtype=torch.float64),
        torch.randn(3, 2, side, side, dtype=torch.float64),
    )
    expected = []
    for a, b in zip(student.numpy(), teacher.numpy(), strict=True):
        used = [level for level in levels if level < side]
        value = ((a - b) ** 2).mean()
        for index, level in enumerate(used):
            value += np.mean(
                [((pooled(a[c], level) - pooled(b[c], level)) ** 2).mean() for c in range(2)]
            ) / 2 ** (index + 1)
        expected.append(value / (1 + sum(0.5 ** (index + 1) for index in range(len(used)))))
    assert np.allclose(hcl_loss(student, teacher, levels, reduction="none"), expected, rtol=1e-12)
    assert np.isclose(float(hcl_loss(student, teacher, levels)), np.mean(expected))


def test_hcl_is_zero_at_a_match_and_different_shapes_are_an_error() -> None:
    image = torch.randn(2, 3, 4, 4)
    assert hcl_loss(image, image) == 0
    with pytest.raises(ValueError, match="hcl_loss: the student's shape"):
        hcl_loss(image, image[:, :1])


def test_fusion_mixes_position_by_position() -> None:
    fusion = AttentionFusion(3, 4, 5, True, lambda channels: nn.Identity()).double()
    student, residual = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        torch.randn(2, 4, 2, 2, dtype=torch.float64),
    )
    _, fused = fusion(student, residual, (4, 4))
    reduce, attend = (
        part[0].weight.detach().numpy()[:, :, 0, 0] for part in (fusion.reduce, fusion.attend)
    )
    bias = fusion.attend[0].bias.detach().numpy()
    for i in range(4):
        for j in range(4):
            stage, deeper = (
                reduce @ student.numpy()[1, :, i, j],
                residual.numpy()[1, :, i // 2, j // 2],
            )
            mix = 1 / (1 + np.exp(-(attend @ np.concatenate([stage, deeper]) + bias)))
            assert np.allclose(
                fused.detach()[1, :, i, j], mix[0] * stage + mix[1] * deeper, rtol=1e-12
            )


def test_a_shallow_teacher_level_has_a_gradient_in_all_deeper_student_levels(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("wide cnn", seed=1)
    objective = ReviewKD()
    objective.build(student, teacher)
    assert [line.rpartition(": ")[2] for line in objective.plan] == [
        "fused with the deeper levels"
    ] * 2 + ["deepest level"]
    levels = tuple(stage.requires_grad_() for stage in student["features"])
    changed = {
        "features": tuple(
            t + 100 * (j == objective.matched[0][1]) for j, t in enumerate(teacher["features"])
        )
    }
    difference = objective({"features": levels}, changed, {}) - objective(
        {"features": levels}, teacher, {}
    )
    for gradient in torch.autograd.grad(difference.sum(), levels):
        assert gradient.abs().sum() > 0


def test_a_pooled_embedding_is_the_deepest_level(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    sides = [
        {"features": (*side["features"], side["features"][-1].mean((2, 3)))}
        for side in (student, teacher)
    ]
    objective = ReviewKD()
    objective.build(*sides)
    assert objective.matched[-1] == (3, 3)
    assert objective(*sides, {}).shape == (4,)


def test_batch_norm_is_an_option(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = ReviewKD(norm="batch")
    objective.build(student, teacher)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in objective.modules()) == 6
    with pytest.raises(ValueError, match=r"got 'btch'. Did you mean batch"):
        ReviewKD(norm="btch")  # type: ignore[arg-type]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(ReviewKD())


def test_contracts() -> None:
    check_objective(ReviewKD)


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert torch.allclose(
        torch.compile(hcl_loss, fullgraph=True, backend="eager")(student, teacher),
        hcl_loss(student, teacher),
    )
