"""Grids of any number of dimensions: layout, size and losses on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.functional.feature_maps import (
    as_map,
    common_sizes,
    downsample_labels,
    match_dimensions,
    resize,
    resize_to_common,
    smaller_grid,
)
from instil.functional.gram import gram
from instil.functional.pairs import match_levels
from instil.functional.pooling import global_average_pool, mean_positions, pool_cells
from instil.objectives.features.attention_transfer import attention_transfer_loss
from instil.objectives.features.cwd import cwd_loss
from instil.objectives.features.fgd import box_masks
from instil.objectives.features.ickd import ickd_loss
from instil.objectives.features.nst import nst_loss
from instil.objectives.features.pkd import pkd_loss
from instil.objectives.features.wkd_feature import grid_cells, wkd_feature_loss


def volume(channels: int = 3, grid: tuple[int, ...] = (4, 6, 8), seed: int = 0) -> Tensor:
    return torch.randn(2, channels, *grid, generator=torch.Generator().manual_seed(seed))


def flat(features: Tensor) -> Tensor:
    """Reshape (N, C, T, H, W) to (N, C, T * H, W)."""
    return features.flatten(2, 3)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "attention_transfer": attention_transfer_loss,
    "attention_transfer, power 1": lambda a, b: attention_transfer_loss(a, b, power=1.0),
    "cwd": cwd_loss,
    "nst": nst_loss,
    "pkd": pkd_loss,
    "ickd": ickd_loss,
    "wkd_feature": wkd_feature_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_without_neighbours_depend_on_the_positions_only(name: str) -> None:
    student, teacher = volume(seed=1), volume(seed=2)
    expected = LOSSES[name](flat(student), flat(teacher))
    torch.testing.assert_close(LOSSES[name](student, teacher), expected)
    assert expected.abs() > 1e-4


def test_resizing_a_video_averages_boxes_of_time_height_and_width() -> None:
    features = volume()
    expected = features.view(2, 3, 2, 2, 3, 2, 4, 2).mean((3, 5, 7))
    torch.testing.assert_close(resize(features, (2, 3, 4)), expected)


def test_enlarging_is_linear_in_each_dimension() -> None:
    ramp = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2)
    larger = resize(ramp, (6, 2, 2))
    assert torch.allclose(larger[0, 0, :, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2]))


def test_a_sequence_is_a_map_of_height_one() -> None:
    sequence = volume(grid=(1, 12))
    assert torch.allclose(resize(sequence, (1, 4)), sequence.view(2, 3, 1, 4, 3).mean(4))


def test_time_is_averaged_for_an_image_and_repeated_for_a_video() -> None:
    features = volume()
    assert torch.equal(match_dimensions(features, 2), features.mean(2))
    image = features[:, :, 0]
    assert torch.equal(resize(image, (3, 6, 8)), image.unsqueeze(2).expand(-1, -1, 3, -1, -1))
    student, teacher = resize_to_common(features, image[..., ::2])
    assert student.shape == teacher.shape == (2, 3, 6, 4)
    assert common_sizes((4, 6, 8), (7, 5)) == (6, 5)
    assert smaller_grid(features, image, "it") == (6, 8)


def test_pooling_of_videos() -> None:
    features = volume()
    assert torch.allclose(global_average_pool(features), features.flatten(2).mean(2))
    assert mean_positions(features, keepdim=True).shape == (2, 3, 1, 1, 1)
    expected = features.view(2, 3, 2, 2, 3, 2, 4, 2).amax((3, 5, 7))
    assert torch.equal(pool_cells(features, 2, "max"), expected)
    assert pool_cells(features, (8, 4, 3)).shape == (2, 3, 1, 2, 3)


def test_gram_of_volumes() -> None:
    first, second = volume(3), volume(5, seed=1)
    rows = first.flatten(2), second.flatten(2)
    expected = rows[0] @ rows[1].mT / (4 * 6 * 8)
    torch.testing.assert_close(gram(first, second, 3), expected)


def test_cells_of_a_volume_are_boxes() -> None:
    features = volume(grid=(2, 4, 4))
    cells = grid_cells(features, 2)
    assert len(cells) == 8
    assert torch.equal(cells[5], features[:, :, 1:, :2, 2:].flatten(2))
    with pytest.raises(ValueError, match=r"2 equal cells in each dimension.*got 3x4x4"):
        ickd_loss(volume(grid=(3, 4, 4)), volume(grid=(3, 4, 4)), grid=2)


def test_labels_of_voxels_are_those_of_the_nearest_voxel() -> None:
    label = torch.arange(2 * 4 * 4 * 4).view(2, 4, 4, 4)
    coarse = downsample_labels(label, (2, 2, 2))
    assert torch.equal(coarse, label[:, ::2, ::2, ::2].flatten(1))
    with pytest.raises(ValueError, match=r"label: .*Expected 2 dimensions.*got shape \(2, 4, 4, 4"):
        downsample_labels(label, (2, 2))


def test_boxes_need_an_image() -> None:
    foreground, background = box_masks(torch.zeros(2, 0, 4), (2, 3, 4))
    assert foreground.shape == (2, 1, 2, 3, 4)
    assert not foreground.any()
    assert torch.allclose(background, torch.full_like(background, 1 / 24))
    with pytest.raises(ValueError, match=r"boxes: .*got a grid of 2x3x4"):
        box_masks(torch.rand(2, 1, 4), (2, 3, 4))


def test_levels_of_videos_are_paired_by_size() -> None:
    sizes = ((2, 8, 8), (2, 4, 4), (2, 2, 2))
    student = [volume(grid=grid) for grid in sizes]
    teacher = [volume(grid=grid) for grid in (sizes[0], sizes[0], *sizes[1:])]
    assert match_levels(student, teacher) == [(0, 1), (1, 2), (2, 3)]


def test_more_than_three_dimensions_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected a map \(N, C, H, W\) or \(N, C, T, H, W\)"):
        as_map(torch.zeros(1, 1, 2, 2, 2, 2))
