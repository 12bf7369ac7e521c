"""Nearest neighbours and interpolation of point sets, against loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.items.neighbours import gather_points, interpolate_points, nearest_neighbours


def point_sets(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


def test_the_neighbours_are_those_of_a_loop_over_all_pairs() -> None:
    query, positions = point_sets(2, 7), point_sets(2, 20, seed=1)
    indices, distances = nearest_neighbours(query, positions, 4)
    for n in range(2):
        for q in range(7):
            lengths = np.linalg.norm((positions[n] - query[n, q]).numpy(), axis=1)
            order = np.argsort(lengths)[:4]
            assert indices[n, q].tolist() == order.tolist()
            np.testing.assert_allclose(distances[n, q], lengths[order], rtol=1e-6)


def test_near_points_far_from_the_origin_keep_their_order() -> None:
    positions = torch.tensor([[[1000.0, 0, 0], [1000.001, 0, 0], [1000.003, 0, 0]]])
    assert nearest_neighbours(positions, positions, 3)[0][0, 0].tolist() == [0, 1, 2]


def test_values_are_gathered_by_set() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    indices = torch.tensor([[[0, 2]], [[1, 1]]])
    expected = torch.stack([values[0, [0, 2]][None], values[1, [1, 1]][None]])
    assert torch.equal(gather_points(values, indices), expected)


def test_an_interpolation_is_the_weighted_mean_of_the_neighbours() -> None:
    values, positions, query = (point_sets(1, 9, seed=seed) for seed in range(3))
    result = interpolate_points(values, positions, query)
    for q in range(9):
        squares = ((positions[0] - query[0, q]) ** 2).sum(1)
        near = squares.argsort()[:3]
        weights = 1 / squares[near]
        expected = (values[0, near] * weights[:, None]).sum(0) / weights.sum()
        torch.testing.assert_close(result[0, q], expected)


def test_at_a_point_of_the_set_the_value_is_its_own() -> None:
    values, positions = point_sets(2, 9), point_sets(2, 9, seed=1)
    subset = positions[:, [4, 1, 8]]
    torch.testing.assert_close(interpolate_points(values, positions, subset), values[:, [4, 1, 8]])


def test_a_set_of_one_point_has_its_value_everywhere() -> None:
    values, positions = point_sets(1, 1), point_sets(1, 1, seed=1)
    torch.testing.assert_close(
        interpolate_points(values, positions, point_sets(1, 4, seed=2)), values.expand(1, 4, 3)
    )


def test_the_gradient_reaches_the_values_only() -> None:
    values, positions = point_sets(1, 5).requires_grad_(), point_sets(1, 5, seed=1)
    query = point_sets(1, 2, seed=2)
    assert torch.autograd.gradcheck(
        lambda values: interpolate_points(values, positions, query), values.double()
    )


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="a set of 5 points has no 6 neighbours"):
        nearest_neighbours(point_sets(1, 5), point_sets(1, 5), 6)
    with pytest.raises(ValueError, match="Expected 1 to 5"):
        nearest_neighbours(point_sets(1, 5), point_sets(1, 5), 0)
    with pytest.raises(ValueError, match=r"got \(1, 5, 3\) and \(2, 5, 3\)"):
        nearest_neighbours(point_sets(1, 5), point_sets(2, 5), 2)
