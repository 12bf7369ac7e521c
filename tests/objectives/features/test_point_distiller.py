"""PointDistiller against loops over points and neighbours."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.objectives.features.point_distiller import (
    PointDistiller,
    edge_features,
    point_distiller_loss,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def looped(
    student: Tensor, teacher: Tensor, space: Tensor, layer: nn.Module, temperature: float
) -> float:
    """Loss of one sample with three points of two neighbours each."""
    importance = teacher.abs().max(1).values
    centres = importance.argsort(descending=True)[:3]
    exponentials = (importance[centres] / temperature).exp()
    weights = 3 * exponentials / exponentials.sum()
    total = 0.0
    for weight, i in zip(weights, centres, strict=True):
        near = (space - space[i]).norm(dim=1).argsort()[:2]
        graphs = []
        for features, function in ((student, layer), (teacher, nn.Identity())):
            edges = [function(torch.cat([features[i], features[j] - features[i]])) for j in near]
            graphs.append(torch.stack(edges).max(0).values)
        total += float(weight * (graphs[0] - graphs[1]).square().mean())
    return total / 3


@pytest.mark.parametrize("space", ["positions", "features"])
def test_is_the_loss_of_loops_over_the_most_important_points(
    space: Literal["positions", "features"],
) -> None:
    student = {"features": (draw(2, 7, 3),), "positions": draw(2, 7, 3, seed=1)}
    teacher = {"features": (draw(2, 7, 5, seed=2),), "positions": student["positions"]}
    objective = PointDistiller(num_points=3, neighbours=2, temperature=0.5, space=space)
    objective.build(student, teacher)
    with torch.no_grad():
        values = objective(student, teacher, {})
        for n in range(2):
            features = teacher["features"][0][n]
            points = student["positions"][n] if space == "positions" else features
            expected = looped(
                student["features"][0][n], features, points, objective.adapters[0], 0.5
            )
            assert np.isclose(float(values[n]), expected, rtol=1e-5)


def test_equal_graph_features_have_no_loss() -> None:
    graph = draw(2, 4, 6)
    assert point_distiller_loss(graph, graph, draw(2, 4)) == 0


def test_edges_hold_the_point_and_the_difference() -> None:
    features = torch.tensor([[[1.0], [4.0]]])
    edges = edge_features(features, torch.tensor([[1]]), torch.tensor([[[1, 0]]]))
    assert edges.tolist() == [[[[4.0, 0.0], [4.0, -3.0]]]]


def test_a_sparse_student_learns_from_the_dense_teacher() -> None:
    positions = draw(2, 30, 3)
    teacher = {"features": (draw(2, 30, 5, seed=2),), "positions": positions}
    student = {
        "features": (draw(2, 10, 5, seed=3).requires_grad_(),),
        "positions": positions[:, ::3],
    }
    objective = PointDistiller(num_points=100, neighbours=4)
    objective.build(student, teacher)
    objective(student, teacher, {}).sum().backward()
    assert student["features"][0].grad.abs().sum() > 0


def test_levels_without_points_raise() -> None:
    student = {"features": (draw(2, 7, 3),), "positions": draw(2, 7, 3)}
    image = {"features": (draw(2, 5, 8, 8),), "positions": draw(2, 7, 3)}
    with pytest.raises(ValueError, match="PointDistiller needs features of the 7 points"):
        PointDistiller().build(student, image)
    vector = {"features": (draw(2, 5),), "positions": draw(2, 7, 3)}
    with pytest.raises(
        ValueError, match=r"PointDistiller needs features of the 7 points.*\(2, 5\)"
    ):
        PointDistiller().build(student, vector)
