"""Synthetic solids: surfaces, views, splits."""

from __future__ import annotations

import torch

from instil.data.sources.solids import CLASSES, depth_views, solids, surface_points


def test_points_lie_on_the_surfaces() -> None:
    label = torch.arange(6)
    points = surface_points(label, 300, torch.Generator().manual_seed(0))
    x, y, z = points.abs().unbind(2)
    radius, side = torch.hypot(x, y), x.maximum(y)
    one = torch.ones(300)
    for row, norm in (
        (0, radius + z),
        (1, torch.hypot(radius, z)),
        (2, radius.maximum(z)),
        (3, side + z),
        (4, torch.hypot(side, z)),
        (5, side.maximum(z)),
    ):
        torch.testing.assert_close(norm[row], one)


def test_splits_have_all_classes_and_both_inputs() -> None:
    data = solids(points=32)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [600, 120, 480]
    assert data.classes == CLASSES
    batch = data.test.__getitems__(range(12))
    assert batch["points"].shape == (12, 32, 3)
    assert batch["views"].shape == (12, 4, 1, 16, 16)
    assert data.train.facts == {"classes": 6, "channels": 3}
    assert not torch.equal(
        data.train.inputs(torch.arange(120))["points"],
        data.validation.inputs(torch.arange(120))["points"],
    )


def test_the_first_input_is_that_of_the_task() -> None:
    data = solids(points=32, task_name="multi_view_classification")
    assert next(iter(data.train[0])) == "views"
    assert data.train.facts == {"classes": 6, "channels": 1, "size": 16}


def test_near_points_hide_far_ones() -> None:
    # Two points on one line of sight of the first view, and one far to the right.
    xyz = torch.tensor([[[0.1, 0.9, 0.1], [0.1, -0.9, 0.1], [1.2, 0.0, 0.1]]])
    views = depth_views(xyz)
    assert views.shape == (1, 4, 1, 16, 16)
    assert (views[0, 0] > 0).sum() == 2
    torch.testing.assert_close(views[0, 0].max(), torch.tensor(0.8))
    assert (views[0, 1] > 0).sum() == 3


def test_the_image_shows_the_points_at_their_pixels() -> None:
    batch = solids().test.__getitems__(range(20))
    assert torch.equal(batch["image"], batch["views"][:, 0])
    is_inside = (batch["pixels"].abs() < 1).all(2)
    assert is_inside.float().mean() > 0.99
    grid = batch["pixels"][:, None]
    seen = torch.nn.functional.grid_sample(
        batch["image"], grid, mode="nearest", align_corners=False
    )
    assert (seen[:, 0, 0][is_inside] > 0).all()
