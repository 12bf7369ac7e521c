from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from instil.core import Outputs
from instil.objectives.features.cat_kd import CatKD, cat_kd_loss, class_activation_map
from instil.testing import check_objective, sample_outputs


@pytest.mark.parametrize("normalize", [False, True])
def test_agrees_with_a_plain_loop(normalize: bool) -> None:
    student, teacher = (
        torch.randn(2, 3, 4, 6, dtype=torch.float64),
        torch.randn(2, 3, 8, 4, dtype=torch.float64),
    )
    expected = []
    for n in range(2):
        total = 0.0
        for c in range(3):
            cells = []
            for image in (student[n, c].numpy(), teacher[n, c].numpy()):
                height, width = (side // 2 for side in image.shape)
                pooled = np.array(
                    [
                        image[i * height : (i + 1) * height, j * width : (j + 1) * width].mean()
                        for i in range(2)
                        for j in range(2)
                    ]
                )
                cells.append(pooled / np.sqrt((pooled**2).sum()) if normalize else pooled)
            total += ((cells[0] - cells[1]) ** 2).sum()
        expected.append(total / 12)
    assert np.allclose(cat_kd_loss(student, teacher, 2, normalize, "none"), expected, rtol=1e-10)
    assert np.isclose(float(cat_kd_loss(student, teacher, 2, normalize)), np.mean(expected))


def test_maps_average_to_the_logits_without_the_bias() -> None:
    head, stage = nn.Linear(5, 3), torch.randn(2, 5, 4, 4)
    maps = class_activation_map(stage, head.weight)
    assert torch.allclose(maps.mean((2, 3)) + head.bias, head(stage.mean((2, 3))), atol=1e-6)


def test_a_dead_class_has_no_gradient_and_no_nan() -> None:
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    cat_kd_loss(student, torch.zeros(2, 3, 2, 2), normalize=True).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_students_classifier_learns_too() -> None:
    student, teacher, batch = sample_outputs()
    weight = student["head"][0].requires_grad_()
    objective = CatKD()
    objective.build(student, teacher)
    objective(student, teacher, batch).mean().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("stage", [(17, 5), (16, 5)])
def test_tokens_are_positions(stage: tuple[int, int]) -> None:
    student: Outputs = {
        "features": (torch.randn(4, 6, 3, 3),),
        "head": (torch.randn(7, 6), torch.zeros(7)),
    }
    teacher: Outputs = {
        "features": (torch.randn(4, *stage),),
        "head": (torch.randn(7, 5), torch.zeros(7)),
    }
    objective = CatKD()
    objective.build(student, teacher)
    assert objective(student, teacher, {}).shape == (4,)


def test_invalid_inputs_are_errors() -> None:
    student, teacher, _ = sample_outputs()
    with pytest.raises(
        ValueError, match="class activation maps need a linear classifier of the deepest features"
    ):
        CatKD().build(student, teacher | {"head": (torch.zeros(7, 3), torch.zeros(7))})
    with pytest.raises(ValueError, match="student features: the deepest level has one position"):
        CatKD().build(student | {"features": (student["embedding"],)}, teacher)
    with pytest.raises(ValueError, match="cat_kd_loss: the student's shape"):
        cat_kd_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))


def test_contracts() -> None:
    check_objective(lambda: CatKD(resolution=1))


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    compiled = torch.compile(cat_kd_loss, fullgraph=True, backend="eager")
    for normalize in (False, True):
        assert torch.allclose(
            compiled(student, teacher, 2, normalize), cat_kd_loss(student, teacher, 2, normalize)
        )


def test_binarized_teacher_maps_are_one_above_their_mean_absolute_value() -> None:
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    binary = torch.zeros_like(teacher)
    for n in range(2):
        for c in range(3):
            threshold = sum(abs(v) for v in teacher[n, c].flatten().tolist()) / 16
            for i in range(4):
                for j in range(4):
                    binary[n, c, i, j] = float(teacher[n, c, i, j] > threshold)
    value = cat_kd_loss(student, teacher, 2, reduction="none", binarize=True)
    assert torch.allclose(value, cat_kd_loss(student, binary, 2, reduction="none"))
    objective = CatKD(binarize=True)
    assert objective.binarize


def test_equal_maps_have_no_loss() -> None:
    maps = torch.randn(2, 3, 4, 4)
    assert float(cat_kd_loss(maps, maps, normalize=True)) == 0
