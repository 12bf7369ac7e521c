from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.modules.adapters import Adapter, linear_adapter

STAGES = {
    "map": (5, 8, 8),
    "small map": (6, 4, 4),
    "wide map": (5, 6, 10),
    "tokens": (16, 7),
    "class token": (17, 7),
    "registers": (1 + 4 + 64, 5),
    "vector": (9,),
    "video": (5, 2, 4, 4),
    "long video": (6, 3, 4, 4),
}


def stage(name: str, size: int = 2) -> Tensor:
    return torch.randn(size, *STAGES[name], generator=torch.Generator().manual_seed(1))


def test_tokens_become_a_square_grid_without_the_leading_ones() -> None:
    tokens = torch.arange(2 * 11 * 3.0).reshape(2, 11, 3)  # two leading tokens, then 3 x 3
    grid = as_map(tokens)
    assert grid.shape == (2, 3, 3, 3)
    for row in range(3):
        for column in range(3):
            assert torch.equal(grid[:, :, row, column], tokens[:, 2 + 3 * row + column])


def test_maps_stay_and_vectors_are_one_position() -> None:
    image, vector = stage("map"), stage("vector")
    assert as_map(image) is image
    assert torch.equal(as_map(vector)[:, :, 0, 0], vector)
    video = torch.zeros(2, 3, 4, 5, 6)
    assert as_map(video) is video
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5, 6, 7\).*expected a map"):
        as_map(torch.zeros(2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize("student", STAGES)
@pytest.mark.parametrize("teacher", STAGES)
@pytest.mark.parametrize("size", [1, 2])
def test_the_students_stage_gets_the_teachers_shape(student: str, teacher: str, size: int) -> None:
    adapter = Adapter(stage(student), stage(teacher))
    features = stage(student, size).requires_grad_()
    adapted = adapter(features)
    assert adapted.shape == as_map(stage(teacher, size)).shape
    adapted.square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    for parameter in adapter.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_nothing_is_learned_where_the_shapes_agree() -> None:
    image = stage("map")
    adapter = Adapter(image, torch.zeros_like(image))
    assert not list(adapter.parameters())
    assert torch.equal(adapter(image), image)
    assert str(adapter) == "as it is"


def test_the_description_of_an_adapter() -> None:
    assert str(Adapter(stage("map"), stage("small map"))) == "8x8 -> 4x4, conv 1x1"
    assert str(Adapter(stage("map"), stage("registers"))) == "as it is"


def test_smaller_grids_are_averages_and_larger_ones_interpolated() -> None:
    image = torch.randn(1, 1, 4, 4)
    pooled = resize(image, (2, 2))
    for row in range(2):
        for column in range(2):
            assert torch.isclose(
                pooled[0, 0, row, column],
                image[0, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(),
            )
    assert torch.allclose(resize(torch.full((1, 2, 3, 3), 5.0), (7, 7)), torch.tensor(5.0))
    assert resize(image, (6, 2)).shape == (1, 1, 6, 2)
    assert resize(image, (4, 4)) is image


@pytest.mark.parametrize(
    ("input_dtype", "output_dtype"),
    [
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_half_precision_becomes_float32_and_double_stays(
    input_dtype: torch.dtype, output_dtype: torch.dtype
) -> None:
    student, teacher = stage("map").to(input_dtype), stage("small map").to(input_dtype)
    adapter = Adapter(student, teacher)
    assert all(parameter.dtype == output_dtype for parameter in adapter.parameters())
    assert adapter(student).dtype == output_dtype


def test_comparable_refuses_what_broadcasting_would_hide() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\) is not the teacher's, \(4, 3\)"):
        require_same_shape(torch.zeros(1, 3), torch.zeros(4, 3), "it")


def test_a_linear_adapter_is_learned_only_where_the_widths_differ() -> None:
    student, teacher = torch.randn(2, 5), torch.randn(2, 7)
    assert list(linear_adapter(student, student).parameters()) == []
    adapter = linear_adapter(student, teacher)
    assert adapter(student.half()).shape == teacher.shape
    assert adapter(student.half()).dtype == torch.float32
    assert [tuple(parameter.shape) for parameter in adapter.parameters()] == [(7, 5), (7,)]
