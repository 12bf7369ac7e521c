"""Contrast of pixels and points: pairs, visibility, superpixels, subsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.objectives.relations.pixel_point_contrast import (
    PixelPointContrast,
    pixel_point_contrast_loss,
    region_means,
)


def test_is_the_cross_entropy_of_the_own_pixel_among_the_visible_ones() -> None:
    student, teacher = (F.normalize(torch.randn(5, 4), dim=1) for _ in range(2))
    visible = torch.tensor([True, False, True, True, False])
    rows = visible.nonzero().flatten().tolist()
    expected = []
    for i in rows:
        scores = {j: np.exp(float(student[i] @ teacher[j]) / 0.2) for j in rows}
        expected.append(-np.log(scores[i] / sum(scores.values())))
    loss = pixel_point_contrast_loss(student, teacher, visible, 0.2)
    assert np.isclose(float(loss), np.mean(expected), rtol=1e-5)


def test_without_visible_points_the_loss_is_zero() -> None:
    student = torch.randn(3, 4, requires_grad=True)
    loss = pixel_point_contrast_loss(student, torch.randn(3, 4), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros(3, 4))


def test_region_means_are_those_of_a_loop() -> None:
    vectors, region = torch.randn(2, 6, 3), torch.tensor([[0, 2, 2, -1, 0, 2], [1, 1, 1, 1, 1, -1]])
    means, has_points = region_means(vectors, region, 3)
    assert has_points.tolist() == [[True, False, True], [False, True, False]]
    for n in range(2):
        for index in range(3):
            if has_points[n, index]:
                expected = vectors[n, region[n] == index].mean(0)
                torch.testing.assert_close(means[n, index], expected)
    assert means[0, 1].abs().sum() == 0


def scene(num_points: int = 6) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Points whose pixels are the centres of the pixels of a 4 x 4 image."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, num_points, 3, generator=generator)
    cells = torch.randint(0, 4, (2, num_points, 2), generator=generator)
    student = {"features": (torch.randn(2, num_points, 5, generator=generator),)}
    teacher = {"features": (torch.randn(2, 7, 4, 4, generator=generator),)}
    batch = {"points": points, "pixels": (cells + 0.5) / 2 - 1, "cells": cells}
    return student | {"positions": points}, teacher, batch


def test_each_point_is_compared_with_the_pixel_that_shows_it() -> None:
    student, teacher, batch = scene()
    batch["pixels"][1, 2] = 1.5
    objective = PixelPointContrast(dim=3)
    objective.build(student, teacher)
    image, cells = teacher["features"][0], batch["cells"]
    seen = torch.stack([image[n, :, cells[n, :, 1], cells[n, :, 0]].T for n in range(2)])
    vectors = objective.heads(student["features"][0].flatten(0, 1), seen.flatten(0, 1))
    visible = torch.ones(12, dtype=torch.bool)
    visible[8] = False
    expected = pixel_point_contrast_loss(*vectors, visible, 0.07)
    torch.testing.assert_close(objective(student, teacher, batch), expected)


def test_a_subset_of_the_points_has_its_own_pixels() -> None:
    student, teacher, batch = scene()
    objective = PixelPointContrast(dim=3)
    objective.build(student, teacher)
    rows = [4, 1]
    subset = {
        "features": (student["features"][0][:, rows],),
        "positions": student["positions"][:, rows],
    }
    own = {"points": batch["points"][:, rows], "pixels": batch["pixels"][:, rows]}
    torch.testing.assert_close(objective(subset, teacher, batch), objective(subset, teacher, own))


def test_superpixels_are_cells_of_a_grid() -> None:
    student, teacher, batch = scene(40)
    objective = PixelPointContrast(dim=3, regions=2)
    objective.build(student, teacher)
    vectors, counts = [], []
    image, cells = teacher["features"][0], batch["cells"]
    for n in range(2):
        seen = image[n, :, cells[n, :, 1], cells[n, :, 0]].T
        for row in range(2):
            for column in range(2):
                inside = (cells[n] // 2 == torch.tensor([column, row])).all(1)
                counts.append(int(inside.sum()))
                vectors.append((student["features"][0][n, inside].mean(0), seen[inside].mean(0)))
    assert min(counts) > 0
    points, pixels = (torch.stack(side) for side in zip(*vectors, strict=True))
    expected = pixel_point_contrast_loss(
        *objective.heads(points, pixels), torch.ones(8, dtype=torch.bool), 0.07
    )
    torch.testing.assert_close(objective(student, teacher, batch), expected)


def test_the_number_of_pairs_is_bounded() -> None:
    student, teacher, batch = scene(40)
    objective = PixelPointContrast(dim=3, size=10)
    objective.build(student, teacher)
    assert objective(student, teacher, batch).isfinite()
    assert len(range(80)[objective._rows(80)]) == 10


def test_wrong_inputs_raise() -> None:
    student, teacher, batch = scene()
    with pytest.raises(ValueError, match="feature maps of images of the teacher"):
        PixelPointContrast().build(student, {"features": (torch.randn(2, 7),)})
    with pytest.raises(ValueError, match="features of points of the student"):
        PixelPointContrast().build(student | {"features": (torch.randn(2, 7),)}, teacher)
    objective = PixelPointContrast()
    objective.build(student, teacher)
    with pytest.raises(ValueError, match=r"pixels: wrong shape\. Expected \(2, 6, 2\)"):
        objective(student, teacher, batch | {"pixels": batch["pixels"][:, :3]})
