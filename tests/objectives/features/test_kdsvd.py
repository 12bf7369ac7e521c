from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.kdsvd import KDSVD, kdsvd_loss, right_singular_vectors

SHAPES = ((4, 3, 3), (6, 2, 4))


def maps(
    count: int = 2, seed: int = 0, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, *shape, dtype=torch.float64, generator=generator) for shape in shapes
    ]


def eigenvectors(stage: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return singular values and right vectors of one sample, in decreasing order.

    They are computed from the eigenvectors of the channel products.
    """
    rows = stage.flatten(1).numpy().T
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return np.sqrt(np.maximum(values[::-1], 0)), vectors[:, ::-1]


def directions(student: Tensor, teacher: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    values, teacher_vectors = eigenvectors(teacher)
    _, student_vectors = eigenvectors(student)
    strength = values[:k] / np.linalg.norm(values[:k])
    chosen, target = [], []
    for i in range(k):
        vector = teacher_vectors[:, i] * np.sign(
            teacher_vectors[np.abs(teacher_vectors[:, i]).argmax(), i]
        )
        candidates = [student_vectors[:, j] for j in range(min(k + 3, student_vectors.shape[1]))]
        best = max(candidates, key=lambda candidate, vector=vector: abs(candidate @ vector))
        chosen.append(best * np.sign(best @ vector) * strength[i])
        target.append(vector * strength[i])
    return np.stack(chosen, 1), np.stack(target, 1)


@pytest.mark.parametrize("k", [1, 2])
def test_agrees_with_eigenvectors_and_loops(k: int) -> None:
    student, teacher = maps(), maps(seed=1)
    for n, ours in enumerate(kdsvd_loss(student, teacher, k, reduction="none")):
        (student_vectors, teacher_vectors), (next_student, next_teacher) = (
            directions(a[n], b[n], k) for a, b in zip(student, teacher, strict=True)
        )
        expected = 0.0
        for c in range(next_student.shape[0]):
            for d in range(student_vectors.shape[0]):
                for i in range(k):
                    ours_kernel = np.exp(-((next_student[c, i] - student_vectors[d, i]) ** 2) / 8)
                    expected += (
                        ours_kernel
                        - np.exp(-((next_teacher[c, i] - teacher_vectors[d, i]) ** 2) / 8)
                    ) ** 2
        assert float(ours) == pytest.approx(expected)


def test_the_gradient_is_that_of_the_vectors() -> None:
    stage = maps(1)[0].requires_grad_()

    def vectors(values: Tensor) -> Tensor:
        return right_singular_vectors(values, 2)[1]

    with torch.no_grad():
        top, step = vectors(stage), 1e-6 * torch.randn_like(stage)
        numeric = (vectors(stage + step) - vectors(stage - step)) / 2
    for channel in range(4):
        (gradient,) = torch.autograd.grad(vectors(stage)[0, channel, 1], stage)
        assert float((gradient * step).sum()) == pytest.approx(
            float(numeric[0, channel, 1]), rel=1e-4, abs=1e-12
        )
    assert torch.allclose(top.mT @ top, torch.eye(2).double())


def test_equal_singular_values_have_a_bounded_gradient() -> None:
    same = torch.eye(4, dtype=torch.float64).view(1, 4, 2, 2).requires_grad_()
    right_singular_vectors(same, 2)[1].sum().backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e6


def test_signs_of_the_teacher_do_not_matter() -> None:
    student, teacher = maps(), maps(seed=1)
    assert torch.allclose(
        kdsvd_loss(student, teacher), kdsvd_loss(student, [teacher[0], -teacher[1]])
    )
    assert torch.allclose(
        kdsvd_loss(student, teacher), kdsvd_loss([-student[0], student[1]], teacher)
    )


def test_a_level_of_one_position_has_one_direction() -> None:
    shapes = ((4, 3, 3), (6, 1, 1))
    assert torch.isfinite(kdsvd_loss(maps(shapes=shapes), maps(seed=1, shapes=shapes), 2))


def test_invalid_inputs_are_errors() -> None:
    with pytest.raises(
        ValueError,
        match="KDSVD goes from one stage to the next and needs two pairs of stages, not 1",
    ):
        kdsvd_loss(maps()[:1], maps()[:1])
    with pytest.raises(ValueError, match="Expected the teacher's 6 channels, got 4"):
        kdsvd_loss(maps(), maps()[::-1])
    with pytest.raises(ValueError, match="signs: unknown value"):
        kdsvd_loss(maps(), maps(), signs="svd")  # type: ignore[arg-type]


def test_any_pair_of_networks_with_several_levels(
    check_pair: Callable[[Objective], None], nets: tuple[str, str]
) -> None:
    if "one map" in nets:
        with pytest.raises(ValueError, match="KDSVD goes from one stage to the next"):
            check_pair(KDSVD())
    else:
        check_pair(KDSVD())


def test_compiles_without_graph_breaks() -> None:
    student, teacher = maps(), maps(seed=1)
    assert torch.allclose(
        torch.compile(kdsvd_loss, fullgraph=True, backend="eager")(student, teacher),
        kdsvd_loss(student, teacher),
    )
