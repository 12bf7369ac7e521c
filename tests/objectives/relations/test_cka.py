from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.cka import CKA, cka_loss


def alignment(student: np.ndarray, teacher: np.ndarray, kernel: str, centre: bool) -> float:
    """Compute CKA by HSIC, with centring matrices."""
    count = len(student)
    middle = np.eye(count) - np.ones((count, count)) / count if centre else np.eye(count)
    matrices = []
    for side in (student, teacher):
        if kernel == "linear":
            matrix = np.array([[a @ b for b in side] for a in side])
        else:
            squared = np.array([[((a - b) ** 2).sum() for b in side] for a in side])
            matrix = np.exp(-squared / (2 * 0.5**2 * squared[~np.eye(count, dtype=bool)].mean()))
        matrices.append(middle @ matrix @ middle)
    one, two = matrices
    return float(np.trace(one @ two) / np.sqrt(np.trace(one @ one) * np.trace(two @ two)))


@pytest.mark.parametrize("width", [4, 7])  # fewer than the samples, and more
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_agrees_with_hsic(kernel: str, centre: bool, width: int) -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, width, dtype=torch.float64),
    )
    loss = cka_loss(student, teacher, kernel, centre=centre)  # type: ignore[arg-type]
    assert np.isclose(
        float(loss), 1 - alignment(student.numpy(), teacher.numpy(), kernel, centre), rtol=1e-9
    )


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_rotation_scale_and_shift_do_not_matter(kernel: str) -> None:
    teacher = torch.randn(6, 4, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert cka_loss(3 * teacher @ turned + 5, teacher, kernel) < 1e-12  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_equal_samples_have_no_alignment(kernel: str) -> None:
    for width in (2, 5):
        student = torch.ones(4, 3, requires_grad=True)
        loss = cka_loss(student, torch.randn(4, width), kernel)  # type: ignore[arg-type]
        assert torch.isclose(loss, torch.tensor(1.0))
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_options_and_unknown_kernel() -> None:
    student, teacher = {"embedding": torch.randn(5, 3)}, {"embedding": torch.randn(5, 4)}
    expected = cka_loss(student["embedding"], teacher["embedding"], "rbf", 0.8, False)
    assert torch.equal(CKA("rbf", 0.8, False)(student, teacher, {}), expected)
    assert cka_loss(student["embedding"], teacher["embedding"], "rbf", 0.5, False) != expected
    with pytest.raises(ValueError, match=r"got 'liner'\. Did you mean linear"):
        cka_loss(student["embedding"], teacher["embedding"], "liner")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    assert torch.allclose(
        torch.compile(cka_loss, fullgraph=True, backend="eager")(student, teacher),
        cka_loss(student, teacher),
    )
