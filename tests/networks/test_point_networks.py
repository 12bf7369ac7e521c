"""Networks of point sets: order of the points, neighbours, taps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.networks.dgcnn import DGCNN, dgcnn, feature_neighbours
from instil.networks.pointnet import PointNet, pointnet
from instil.networks.presets import taps_for
from instil.tasks.point_classification import call


def networks() -> list[nn.Module]:
    return [pointnet(5, width=8), dgcnn(5, width=8, neighbours=4)]


@pytest.mark.parametrize("index", [0, 1])
def test_the_order_of_the_points_does_not_matter(index: int) -> None:
    model = networks()[index].eval()
    points = torch.randn(3, 20, 3)
    order = torch.randperm(20)
    torch.testing.assert_close(model(points), model(points[:, order]))


@pytest.mark.parametrize("index", [0, 1])
def test_levels_are_maps_of_the_points(index: int) -> None:
    model = networks()[index].eval()
    outputs = Net(model, call, taps_for(model))({"points": torch.randn(3, 20, 3)})
    assert [level.shape for level in outputs["features"]] == [
        (3, 8 * 2**level, 1, 20) for level in range(3)
    ]
    assert outputs["positions"].shape == (3, 20, 3)
    weight, bias = outputs["head"]
    torch.testing.assert_close(outputs["embedding"] @ weight.T + bias, outputs["logits"])


def test_neighbours_in_feature_space_are_those_of_a_loop() -> None:
    values = torch.randn(2, 6, 15)
    indices = feature_neighbours(values, 4)
    for n in range(2):
        distances = torch.cdist(values[n].T, values[n].T)
        for point in range(15):
            expected = distances[point].argsort()[:4].tolist()
            assert indices[n, point].tolist() == expected


def test_too_few_points_raise() -> None:
    with pytest.raises(ValueError, match=r"dgcnn\.neighbours: the set has 8 points.*got 16"):
        dgcnn(5)(torch.randn(2, 8, 3))


def test_number_of_parameters_is_that_of_the_docstring() -> None:
    for build, count in ((pointnet, 12074), (dgcnn, 81546)):
        assert sum(parameter.numel() for parameter in build(10).parameters()) == count
        assert f"{count:,}" in (build.__doc__ or "")


def test_builders_return_their_networks() -> None:
    assert isinstance(pointnet(2, channels=6), PointNet)
    assert isinstance(dgcnn(2, channels=6), DGCNN)
