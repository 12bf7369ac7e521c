"""Augmentation of point sets: geometry, subsets, and independence of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.core import Batch
from instil.data.point_augmentation import PointAugmentation, rotations
from instil.data.point_checks import check_points


def batch(rows: int = 6, num_points: int = 40, channels: int = 3) -> Batch:
    points = torch.randn(rows, num_points, channels, generator=torch.Generator().manual_seed(0))
    return {
        "points": points,
        "index": torch.arange(rows),
        "view": torch.zeros(rows, dtype=torch.int64),
    }


def augmented(sample: Batch, **options: Any) -> torch.Tensor:
    points: torch.Tensor = PointAugmentation(**options)(sample)["points"]
    return points


def test_without_options_nothing_changes() -> None:
    assert torch.equal(augmented(batch()), batch()["points"])


@pytest.mark.parametrize(("up", "axis"), [("x", 0), ("y", 1), ("z", 2)])
def test_a_rotation_keeps_the_height_and_the_shape(up: Any, axis: int) -> None:
    points, sample = augmented(batch(), rotate=180, up=up), batch()["points"]
    torch.testing.assert_close(points[..., axis], sample[..., axis])
    torch.testing.assert_close(*(torch.nn.functional.pdist(xyz[0]) for xyz in (points, sample)))
    assert (points - sample).abs().max() > 0.5


def test_a_small_rotation_is_within_its_bound() -> None:
    points, sample = augmented(batch(200), rotate=10), batch(200)["points"]
    cosine = torch.cosine_similarity(points[..., :2], sample[..., :2], dim=2)
    degrees = cosine.clamp(-1, 1).acos().rad2deg().mean(1)
    assert 8 < degrees.max() <= 10.1
    assert degrees.min() < 1


def test_rotations_turn_counterclockwise() -> None:
    turn = rotations(torch.tensor([torch.pi / 2]), 2)[0]
    torch.testing.assert_close(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


def test_normals_turn_with_the_points() -> None:
    sample = batch(channels=7)
    sample["points"][..., 3:6] = sample["points"][..., :3]
    points = augmented(sample, rotate=180, normals=True)
    torch.testing.assert_close(points[..., 3:6], points[..., :3])
    assert torch.equal(points[..., 6], sample["points"][..., 6])
    assert torch.equal(augmented(sample, rotate=180)[..., 3:], sample["points"][..., 3:])


def test_scale_and_jitter_have_their_size() -> None:
    points, sample = augmented(batch(300), scale=0.2), batch(300)["points"]
    factor = (points / sample).mean((1, 2))
    assert 0.8 <= factor.min() < 0.82
    assert 1.18 < factor.max() <= 1.2
    noise = augmented(batch(300), jitter=0.1) - batch(300)["points"]
    assert abs(noise.std() - 0.1) < 0.002


def test_dropped_points_are_replaced_by_a_point_that_stays() -> None:
    sample = batch(60)
    points = augmented(sample, drop=0.5)
    for before, after in zip(sample["points"], points, strict=True):
        is_same = (before == after).all(1)
        assert is_same.sum() >= 20
        assert len({tuple(point) for point in after[~is_same].tolist()}) <= 1
    shares = [len({tuple(point) for point in row}) / 40 for row in points.tolist()]
    assert min(shares) < 0.6
    assert max(shares) > 0.9


def test_a_shuffle_keeps_the_set() -> None:
    points, sample = augmented(batch(), shuffle=True), batch()["points"]
    for before, after in zip(sample, points, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert not torch.equal(points, sample)


def test_the_transformation_does_not_depend_on_the_batch() -> None:
    options = {"rotate": 180, "scale": 0.2, "jitter": 0.1, "drop": 0.5, "shuffle": True, "seed": 3}
    sample = batch()
    part = {key: value[2:4] for key, value in sample.items()}
    assert torch.equal(augmented(sample, **options)[2:4], augmented(part, **options))
    other_view = sample | {"view": sample["view"] + 1}
    assert not torch.equal(augmented(sample, **options), augmented(other_view, **options))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(2, 4, 2), r"x, y and z first, got \(2, 4, 2\)"),
        (torch.zeros(2, 0, 3), r"at least one point.*got \(2, 0, 3\)"),
        (torch.zeros(2, 12), r"got \(2, 12\)"),
        (torch.zeros(2, 4, 3, dtype=torch.int64), "Expected floating-point numbers"),
        (torch.tensor([[[0.0, 0, 0]], [[torch.nan, 0, 0]]]), "row 1 has NaN"),
    ],
)
def test_wrong_points_raise(points: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"points: .*{message}"):
        check_points(points)


def test_the_pixels_of_points_are_reordered_with_them() -> None:
    sample = batch()
    sample["pixels"] = sample["points"][..., :2].clone()
    changed = PointAugmentation(shuffle=True, drop=0.5)(sample)
    assert torch.equal(changed["pixels"], changed["points"][..., :2])
