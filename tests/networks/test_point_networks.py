"""Networks of point sets: order of the points, neighbours, taps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.networks.dgcnn import DGCNN, dgcnn, feature_neighbours
from instil.networks.point_transformer import PointTransformer, VectorAttention, point_transformer
from instil.networks.pointnet import PointNet, pointnet
from instil.networks.presets import taps_for
from instil.tasks.point_classification import call


def networks() -> list[nn.Module]:
    return [
        pointnet(5, width=8),
        dgcnn(5, width=8, neighbours=4),
        point_transformer(5, width=8, neighbours=4),
    ]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_order_of_the_points_does_not_matter(index: int) -> None:
    model = networks()[index].eval()
    points = torch.randn(3, 20, 3)
    order = torch.randperm(20)
    torch.testing.assert_close(model(points), model(points[:, order]))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_levels_are_maps_of_the_points(index: int) -> None:
    model = networks()[index].eval()
    outputs = Net(model, call, taps_for(model))({"points": torch.randn(3, 20, 3)})
    assert [level.shape for level in outputs["features"]] == [
        (3, 8 if index == 2 else 8 * 2**level, 1, 20) for level in range(3)
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


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_are_exact_under_autocast_and_far_from_the_origin(offset: float) -> None:
    # Whole multiples of 1 / 16 are exact at both places.
    positions = (
        torch.rand(2, 3, 200, generator=torch.Generator().manual_seed(0)) * 64
    ).round() / 16
    points = positions.double().mT
    distances = torch.cdist(points, points)
    with torch.autocast("cpu", torch.bfloat16):
        indices = feature_neighbours(positions + offset, 8)
    nearest = distances.sort(dim=2).values[..., :8]
    torch.testing.assert_close(distances.gather(2, indices), nearest)


def test_too_few_points_raise() -> None:
    with pytest.raises(ValueError, match=r"neighbours: the set has 8 points.*got 16"):
        dgcnn(5)(torch.randn(2, 8, 3))


def test_number_of_parameters_is_that_of_the_docstring() -> None:
    for build in (pointnet, dgcnn, point_transformer):
        count = sum(parameter.numel() for parameter in build(10).parameters())
        assert f"{count:,}" in (build.__doc__ or "")


def test_builders_return_their_networks() -> None:
    assert isinstance(pointnet(2, channels=6), PointNet)
    assert isinstance(dgcnn(2, channels=6), DGCNN)
    assert isinstance(point_transformer(2, channels=6), PointTransformer)


def test_vector_attention_is_that_of_a_loop() -> None:
    layer = VectorAttention(4).eval()
    values, xyz = torch.randn(1, 5, 4), torch.randn(1, 5, 3)
    neighbours = torch.tensor([[[0, 1], [1, 4], [2, 0], [3, 2], [4, 3]]])
    offsets = torch.stack([xyz[0, i] - xyz[0, neighbours[0, i]] for i in range(5)])[None]
    result = layer(values, offsets, neighbours)
    normed = layer.norm(values)[0]
    for i in range(5):
        scores, contents = [], []
        for j in neighbours[0, i]:
            offset = layer.position(xyz[0, i] - xyz[0, j])
            scores.append(layer.weight(layer.query(normed[i]) - layer.key(normed[j]) + offset))
            contents.append(layer.value(normed[j]) + offset)
        mixed = (torch.stack(scores).softmax(0) * torch.stack(contents)).sum(0)
        torch.testing.assert_close(result[0, i], values[0, i] + layer.projection(mixed))
