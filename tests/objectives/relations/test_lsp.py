from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Objectives
from instil.objectives.relations.lsp import KERNELS, LSP, lsp_loss

EDGES = torch.tensor(
    [[0, 1, 3, 3, 2, 4, 1, 0], [1, 0, 0, 1, 1, 4, 4, 0]]
)  # source, target; nodes 2 and 3 have no neighbour


def value(kernel: str, a: np.ndarray, b: np.ndarray, width: float) -> float:
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    return {
        "laplacian": np.exp(-np.abs(a - b).sum() / width),
        "gaussian": np.exp(-((a - b) ** 2).sum() / 2 / width),
        "euclidean": np.sqrt(((a - b) ** 2).sum()),
        "cosine": cosine,
        "polynomial": cosine**2,
    }[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_agrees_with_plain_loops(kernel: str) -> None:
    student, teacher = (
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 6, dtype=torch.float64),
    )
    expected = []
    for node in range(5):
        sources = [a for a, b in EDGES.T.tolist() if b == node]
        total = 0.0
        if sources:
            student_values, teacher_values = (
                np.exp([value(kernel, side[a], side[node], 2.0) for a in sources])
                for side in (student.numpy(), teacher.numpy())
            )
            q, p = student_values / student_values.sum(), teacher_values / teacher_values.sum()
            total = (p * np.log(p / q)).sum()
        expected.append(total)
    assert np.allclose(
        lsp_loss(student, teacher, EDGES, kernel, 2.0, reduction="none"),
        expected,
        rtol=1e-10,
        atol=1e-14,
    )  # type: ignore[arg-type]
    assert np.isclose(float(lsp_loss(student, teacher, EDGES, kernel, 2.0)), np.sum(expected) / 3)


def test_equal_nodes_have_a_finite_gradient() -> None:
    for kernel in KERNELS:
        for student in (torch.zeros(5, 3), torch.ones(5, 3)):
            student.requires_grad_()
            loss = lsp_loss(student, torch.randn(5, 6), EDGES, kernel)  # type: ignore[arg-type]
            assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all(), kernel


def test_the_last_of_the_features_stands_for_the_embedding() -> None:
    student, teacher = (
        {"features": (torch.randn(5, 2), torch.randn(5, 3))},
        {"embedding": torch.randn(5, 6)},
    )
    objectives = Objectives({"lsp": LSP("cosine")})
    objectives.build(student, teacher)
    batch = {"x": torch.zeros(5, 1), "edge_index": EDGES}
    expected = lsp_loss(student["features"][1], teacher["embedding"], EDGES, "cosine")
    assert torch.allclose(objectives(student, teacher, batch).losses["lsp"], expected)


def test_no_edges_are_no_loss() -> None:
    student = torch.randn(5, 3, requires_grad=True)
    loss = lsp_loss(student, torch.randn(5, 6), torch.zeros(2, 0, dtype=torch.int64))
    assert loss == 0
    assert torch.autograd.grad(loss, student)[0].abs().sum() == 0


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match=r"kernel: unknown value.*got 'rbf'"):
        LSP("rbf")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 6)
    compiled = torch.compile(lsp_loss, fullgraph=True, backend="eager")(student, teacher, EDGES)
    assert torch.allclose(compiled, lsp_loss(student, teacher, EDGES))
