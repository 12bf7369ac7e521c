from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.relations.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from instil.testing import check_objective


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def distances(samples: np.ndarray) -> np.ndarray:
    actual = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in samples] for a in samples])
    return actual / actual[actual > 0].mean()


def cosine(samples: np.ndarray, i: int, j: int, k: int) -> float:
    to_j, to_k = samples[j] - samples[i], samples[k] - samples[i]
    lengths = np.sqrt((to_j**2).sum()) * np.sqrt((to_k**2).sum())
    return float(to_j @ to_k / lengths) if lengths > 0 else 0.0


@pytest.mark.parametrize("size", [2, 5])
def test_agrees_with_plain_loops(size: int) -> None:
    student, teacher = (
        torch.randn(size, 3, dtype=torch.float64),
        4 * torch.randn(size, 6, dtype=torch.float64),
    )
    student[0] *= 10  # beyond the Huber corner
    a, b = student.numpy(), teacher.numpy()
    all_samples = range(size)
    expected = np.mean([[huber(x) for x in row] for row in distances(a) - distances(b)])
    assert np.isclose(float(rkd_distance_loss(student, teacher)), expected, rtol=1e-10)
    triplets = [
        huber(cosine(a, i, j, k) - cosine(b, i, j, k))
        for i in all_samples
        for j in all_samples
        for k in all_samples
    ]
    assert np.isclose(float(rkd_angle_loss(student, teacher)), np.mean(triplets), rtol=1e-10)


def test_the_scale_and_the_position_do_not_matter() -> None:
    student = torch.randn(6, 4, dtype=torch.float64)
    moved = 30 * student + 5
    assert rkd_distance_loss(student, moved) < 1e-12
    assert rkd_angle_loss(student, moved) < 1e-12


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
@pytest.mark.parametrize(
    "case", ["duplicates", "collapsed", "huge", "offset", "match", "one", "none", "bfloat16"]
)
def test_value_and_gradient_are_finite(loss: object, case: str) -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 5)
    if case == "duplicates":
        student[1] = student[0]
    elif case == "collapsed":
        student = torch.ones(6, 4)
    elif case == "huge":
        student, teacher = student * 1e4, teacher * 1e4
    elif case == "offset":
        student = student + 1e4
    elif case == "match":
        teacher = student.clone()
    elif case in ("one", "none"):
        count = 1 if case == "one" else 0
        student, teacher = student[:count], teacher[:count]
    elif case == "bfloat16":
        student, teacher = student.bfloat16(), teacher.bfloat16()
    student = student.requires_grad_()
    value: Tensor = loss(student, teacher)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().amax() < 1e4 if len(student) else True
    if case in ("match", "one", "none"):
        assert value.abs() < 1e-12


def test_many_near_samples_have_distinct_distances() -> None:
    """A Gram matrix in float32 would lose these distances."""
    student, teacher = torch.randn(8, 4), torch.randn(8, 5)
    near = rkd_distance_loss(student / 100 + 100, teacher)
    assert torch.isclose(near, rkd_distance_loss(student, teacher), rtol=0.05)


def test_weights_and_roles() -> None:
    student, teacher = (
        {"logits": torch.randn(5, 3)},
        {"embedding": torch.randn(5, 4), "logits": torch.randn(5, 3)},
    )
    objective = RKD(distance=2.0, angle=3.0)
    objective.resolve(student, teacher)
    expected = 2 * rkd_distance_loss(student["logits"], teacher["embedding"]) + 3 * rkd_angle_loss(
        student["logits"], teacher["embedding"]
    )
    assert torch.isclose(objective(student, teacher, {}), expected)


def test_contracts() -> None:
    check_objective(RKD)
    check_objective(lambda: RKD(distance=1.0, angle=0.0))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    for loss in (rkd_distance_loss, rkd_angle_loss):
        assert torch.allclose(
            torch.compile(loss, fullgraph=True, backend="eager")(student, teacher),
            loss(student, teacher),
        )
