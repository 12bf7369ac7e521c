"""PointNet++: sampling, balls, order of the points, levels, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instil.core import Net
from instil.export.onnx import to_onnx
from instil.networks.pointnet_plus_plus import (
    SetAbstraction,
    ball_query,
    farthest_point_sampling,
    pointnet_plus_plus,
)
from instil.networks.presets import taps_for
from instil.objectives.features.fitnet import FitNet
from instil.tasks.point_classification import call


def small_net(width: int = 4, **options: float) -> Net:
    model = pointnet_plus_plus(5, width=width, neighbours=3, **options).eval()
    return Net(model, call, taps_for(model))


def test_sampled_points_are_those_of_a_loop() -> None:
    points = torch.randn(3, 12, 3, dtype=torch.float64)
    indices = farthest_point_sampling(points, 5)
    for n in range(3):
        selected = [int((points[n] - points[n].mean(0)).norm(dim=1).argmax())]
        for _ in range(4):
            distances = torch.cdist(points[n], points[n, selected]).amin(1)
            selected.append(int(distances.argmax()))
        assert indices[n].tolist() == selected


def test_balls_are_those_of_a_loop() -> None:
    points = torch.randn(2, 15, 3)
    centres = points[:, :4]
    indices = ball_query(centres, points, 1.2, 6)
    for n in range(2):
        for m in range(4):
            distances = (points[n] - centres[n, m]).norm(dim=1)
            near = [p for p in distances.argsort().tolist() if distances[p] <= 1.2][:6]
            expected = near + [near[0]] * (6 - len(near))
            assert indices[n, m].tolist() == expected


def test_a_centre_has_the_maximum_over_its_ball() -> None:
    layer = SetAbstraction(2, 4, ratio=3, radius=1.5, neighbours=5).eval()
    points, features = torch.randn(1, 9, 3), torch.randn(1, 9, 2)
    centres, values = layer(points, features)
    assert centres.shape == (1, 3, 3)
    for m in range(3):
        near = ball_query(centres[:, m : m + 1], points, 1.5, 5)[0, 0]
        rows = [torch.cat([(points[0, p] - centres[0, m]) / 1.5, features[0, p]]) for p in near]
        expected = layer.layers(torch.stack(rows).T[None]).amax(2)[0]
        torch.testing.assert_close(values[0, m], expected)


def test_the_order_of_the_points_does_not_matter() -> None:
    net = small_net()
    points = torch.randn(3, 32, 3)
    order = torch.randperm(32)
    outputs = net({"points": points})
    torch.testing.assert_close(outputs["logits"], net({"points": points[:, order]})["logits"])


def test_each_level_has_its_own_points() -> None:
    teacher = small_net(width=6)({"points": torch.randn(2, 48, 3)})
    student = small_net()({"points": torch.randn(2, 32, 3)})
    assert [level.shape for level in teacher["features"]] == [(2, 12, 6), (2, 3, 12)]
    assert [level.shape for level in teacher["positions"]] == [(2, 12, 3), (2, 3, 3)]
    weight, bias = teacher["head"]
    torch.testing.assert_close(teacher["embedding"] @ weight.T + bias, teacher["logits"])
    objective = FitNet()
    roles = student.keys(), teacher.keys()
    objective.resolve(*roles)
    objective.build(student, teacher)
    assert objective(student, teacher, {"index": torch.arange(2)}).shape == (2,)


def test_normals_are_features_of_the_points() -> None:
    model = pointnet_plus_plus(5, channels=6, width=4, neighbours=3).eval()
    points = torch.randn(2, 32, 6)
    changed = torch.cat([points[..., :3], points[..., 3:] + 1], 2)
    assert not torch.allclose(model(points)["logits"], model(changed)["logits"])


@pytest.mark.slow
def test_exported_graph_has_the_same_outputs(tmp_path: Path) -> None:
    batch = {"points": torch.randn(4, 16, 3)}
    answer = to_onnx(small_net(depth=1), batch, tmp_path / "student.onnx", ("points",))
    assert answer["max_difference"] < 1e-5


def test_number_of_parameters_is_that_of_the_docstring() -> None:
    count = sum(parameter.numel() for parameter in pointnet_plus_plus(10).parameters())
    assert f"{count:,} parameters" in (pointnet_plus_plus.__doc__ or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels: too small. Expected at least 3, got 2"),
        ({"depth": 0}, "depth: too small"),
        ({"ratio": 0}, "ratio: too small"),
        ({"radius": 0.0}, "radius: not positive"),
    ],
)
def test_wrong_options_raise(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"pointnet_plus_plus.{message}"):
        pointnet_plus_plus(5, **options)


def test_too_few_points_raise() -> None:
    with pytest.raises(ValueError, match=r"neighbours: the level has 8 points.*got 16"):
        pointnet_plus_plus(5)(torch.randn(2, 32, 3))
