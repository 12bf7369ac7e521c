from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.relations.hkd import DIVERGENCES, HKD, KERNELS, hkd_loss


def neighbours(samples: np.ndarray, kernel: str) -> np.ndarray:
    apart = np.array([[np.sqrt(((a - b) ** 2).sum() + 1e-6) for b in samples] for a in samples])
    length = [math.sqrt(a @ a) + 1e-6 for a in samples]
    alike = {
        "cosine": np.array(
            [
                [(a @ b / (length[i] * length[j]) + 1) / 2 for j, b in enumerate(samples)]
                for i, a in enumerate(samples)
            ]
        ),
        "student_t": 1 / (1 + apart),
        "cauchy": 1 / (1 + apart**2),
        "rbf": np.exp(-apart),
        "adaptive_rbf": np.exp(-apart / apart.mean()),
    }[kernel]
    return alike / alike.sum(1, keepdims=True)


def divergence(p: float, q: float, name: str) -> float:
    return {
        "jeffreys": (p - q) * (math.log(p) - math.log(q)),
        "kl": p * math.log(p / q),
        "squared": (p - q) ** 2,
        "abs": abs(p - q),
        "exponential": p * (math.log(p) - math.log(q)) ** 2,
        "kagan": (p - q) ** 2 / p,
    }[name]


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_agrees_with_a_plain_loop(kernel: str, name: str) -> None:
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64),
        torch.randn(4, 2, 3, dtype=torch.float64),
    )
    expected = 0.0
    for one in ("cosine", "student_t") if kernel == "combined" else (kernel,):
        q, p = neighbours(student.numpy(), one), neighbours(teacher.flatten(1).numpy(), one)
        expected += np.mean(
            [divergence(p[i, j], q[i, j], name) for i in range(4) for j in range(4)]
        )
    assert np.isclose(float(hkd_loss(student, teacher, kernel, name)), expected, rtol=1e-8)


def test_the_teacher_may_have_another_kernel() -> None:
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64),
        torch.randn(4, 5, dtype=torch.float64),
    )
    q, p = neighbours(student.numpy(), "cosine"), neighbours(teacher.numpy(), "rbf")
    assert np.isclose(
        float(hkd_loss(student, teacher, "cosine", "squared", teacher_kernel="rbf")),
        ((p - q) ** 2).mean(),
    )


@pytest.mark.parametrize("progress", [None, 0.0, 0.5, 1.0])
def test_early_stages_count_less_and_less(progress: float | None) -> None:
    student = {
        "features": tuple(torch.randn(4, *shape) for shape in ((3, 8, 8), (5, 4, 4), (6, 2, 2)))
    }
    teacher = {
        "features": tuple(torch.randn(4, *shape) for shape in ((4, 8, 8), (17, 6), (8, 2, 2)))
    }
    objective = HKD(intermediate=10.0, decay=0.04, pairs=[[0, 0], [1, 1], [2, 2]])
    objective.build(student, teacher)
    terms = [
        float(hkd_loss(student_values, teacher_values))
        for student_values, teacher_values in zip(
            student["features"], teacher["features"], strict=True
        )
    ]
    early = {None: 10.0, 0.0: 10.0, 0.5: 2.0, 1.0: 0.4}[progress]
    loss = objective(
        student, teacher, {} if progress is None else {"progress": torch.tensor(progress)}
    )
    assert float(loss) == pytest.approx(early * (terms[0] + terms[1]) + terms[2], rel=1e-5)


def test_opposite_samples_have_a_logarithm() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = hkd_loss(student, torch.randn(3, 4))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"got 'cosin'\. Did you mean cosine"):
        hkd_loss(torch.randn(2, 3), torch.randn(2, 3), "cosin")
    with pytest.raises(ValueError, match=r"got 'jeffrey'\. Did you mean jeffreys"):
        hkd_loss(torch.randn(2, 3), torch.randn(2, 3), divergence="jeffrey")


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(hkd_loss, fullgraph=True, backend="eager")(student, teacher),
        hkd_loss(student, teacher),
    )
