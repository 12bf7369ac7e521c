from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.gsp import GSP, KERNELS, gsp_loss


def value(kernel: str, a: np.ndarray, b: np.ndarray) -> float:
    cosine, squared = a @ b / np.sqrt((a @ a) * (b @ b)), ((a - b) ** 2).sum()
    return {
        "cosine": cosine,
        "polynomial": cosine**2,
        "euclidean": np.sqrt(squared),
        "gaussian": np.exp(-squared / 2 / 3),
    }[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_agrees_with_plain_loops(kernel: str) -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 6, dtype=torch.float64),
    )
    a, b = student.numpy(), teacher.numpy()
    terms = [
        (value(kernel, a[i], a[j]) - value(kernel, b[i], b[j])) ** 2
        for i in range(5)
        for j in range(5)
    ]
    assert np.isclose(float(gsp_loss(student, teacher, kernel, 3.0)), np.mean(terms), rtol=1e-10)


def test_equal_nodes_have_a_finite_gradient() -> None:
    for kernel in KERNELS:
        student = torch.ones(4, 3, requires_grad=True)
        assert torch.isfinite(
            torch.autograd.grad(gsp_loss(student, torch.randn(4, 6), kernel), student)[0]
        ).all()  # type: ignore[arg-type]


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match=r"kernel: unknown value.*got 'rbf'"):
        GSP("rbf")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 6)
    assert torch.allclose(
        torch.compile(gsp_loss, fullgraph=True, backend="eager")(student, teacher),
        gsp_loss(student, teacher),
    )
