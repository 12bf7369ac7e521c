from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.irg import IRG, irg_graph_loss, irg_transform_loss


def edges(samples: torch.Tensor) -> np.ndarray:
    flat = samples.flatten(1).numpy()
    squared = np.array([[((a - b) ** 2).sum() for b in flat] for a in flat])
    return squared / squared.max()


def test_the_graph_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 2, 4, dtype=torch.float64),
    )
    assert np.isclose(
        float(irg_graph_loss(student, teacher)), ((edges(student) - edges(teacher)) ** 2).mean()
    )
    other = torch.randn(5, 3, dtype=torch.float64)
    vertices = ((student - other) ** 2).mean()
    assert np.isclose(
        float(irg_graph_loss(student, other)),
        ((edges(student) - edges(other)) ** 2).mean() + float(vertices),
    )


@pytest.mark.parametrize("width", [(3, 3, 4, 4), (3, 3, 4, 2), (3, 5, 4, 4)])
def test_the_way_agrees_with_a_plain_loop(width: tuple[int, int, int, int]) -> None:
    a, b, c, d = (torch.randn(5, n, 2, dtype=torch.float64) for n in width)
    student_values, teacher_values = (
        ((edges(a) - edges(b)) ** 2).mean(),
        ((edges(c) - edges(d)) ** 2).mean(),
    )
    expected = (student_values - teacher_values) ** 2
    if width == (3, 3, 4, 4):
        expected += float(((a - b) ** 2).mean() - ((c - d) ** 2).mean()) ** 2
    assert np.isclose(float(irg_transform_loss((a, b), (c, d))), expected)


@pytest.mark.parametrize(("student", "teacher"), [("cnn", "vit"), ("vit", "cnn")])
def test_all_consecutive_pairs_of_any_nets(student: str, teacher: str) -> None:
    levels = {
        "cnn": tuple(torch.randn(4, *s) for s in ((3, 8, 8), (5, 4, 4), (6, 2, 2))),
        "vit": tuple(torch.randn(4, 17, 6) for _ in range(4)),
    }
    sides = [
        {"embedding": torch.randn(4, 3 + n), "features": levels[name]}
        for n, name in enumerate((student, teacher))
    ]
    objective = IRG(transform=0.5)
    objective.build(*sides)
    assert len(objective.matched) == 3
    expected = irg_graph_loss(sides[0]["embedding"], sides[1]["embedding"])
    for (i, j), (k, m) in (objective.matched[:2], objective.matched[1:]):
        expected = expected + 0.5 * irg_transform_loss(
            (levels[student][i], levels[student][k]), (levels[teacher][j], levels[teacher][m])
        )
    assert torch.isclose(objective(*sides, {}), expected)


def test_one_stage_has_no_way() -> None:
    side = {"embedding": torch.randn(4, 3), "features": (torch.randn(4, 3, 8, 8),)}
    with pytest.raises(
        ValueError,
        match=r"Expected two or more, got 1\. Name them with pairs, or set transform: 0",
    ):
        IRG().build(side, side)
    objective = IRG(transform=0.0)
    objective.build(side, side)
    assert objective(side, side, {}) == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_samples(value: float) -> None:
    student = torch.full((4, 3), value, requires_grad=True)
    loss = irg_graph_loss(student, torch.randn(4, 5))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_compiles_whole() -> None:
    a, b, c, d = (torch.randn(5, n) for n in (3, 4, 5, 6))
    assert torch.allclose(
        torch.compile(irg_graph_loss, fullgraph=True, backend="eager")(a, b), irg_graph_loss(a, b)
    )
    way = torch.compile(irg_transform_loss, fullgraph=True, backend="eager")
    assert torch.allclose(way((a, b), (c, d)), irg_transform_loss((a, b), (c, d)))
