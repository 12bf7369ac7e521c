"""Affinity of points against loops over regions and pairs."""

from __future__ import annotations

import numpy as np
import torch

from instil.objectives.relations.point_affinity import PointAffinity, point_affinity_loss


def test_is_the_mean_squared_difference_of_cosines() -> None:
    student, teacher = torch.randn(2, 6, 3), torch.randn(2, 6, 5)
    regions = torch.tensor([[[0, 1, 5], [2, 3, 4]], [[5, 4, 3], [0, 0, 1]]])
    values = point_affinity_loss(student, teacher, regions, reduction="none")
    for n in range(2):
        squares = []
        for region in regions[n]:
            for i in region:
                for j in region:
                    cosines = [
                        torch.cosine_similarity(side[n, i], side[n, j], dim=0)
                        for side in (student, teacher)
                    ]
                    squares.append(float(cosines[0] - cosines[1]) ** 2)
        assert np.isclose(float(values[n]), np.mean(squares), rtol=1e-4)


def test_regions_are_evenly_spaced_points_and_their_neighbours() -> None:
    # Points on a line: the regions of two centres are {0, 1, 2} and {5, 4, 6}.
    positions = torch.zeros(1, 10, 3)
    positions[0, :, 0] = torch.arange(10) ** 1.01
    student, teacher = torch.randn(1, 10, 3), torch.randn(1, 10, 3)
    outputs = [{"features": (side,), "positions": positions} for side in (student, teacher)]
    objective = PointAffinity(num_regions=2, neighbours=3)
    objective.build(*outputs)
    expected = point_affinity_loss(student, teacher, torch.tensor([[[0, 1, 2], [5, 4, 6]]]))
    torch.testing.assert_close(objective(*outputs, {}), expected[None])


def test_the_scale_of_the_features_does_not_matter() -> None:
    student, regions = torch.randn(2, 6, 3), torch.tensor([[[0, 1, 5]]] * 2)
    assert point_affinity_loss(student, 3 * student, regions) < 1e-12
