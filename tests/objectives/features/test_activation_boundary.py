from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from instil.core import Objective
from instil.objectives.features.activation_boundary import (
    ActivationBoundary,
    activation_boundary_loss,
)


def test_is_a_hinge_on_the_side_of_the_teacher() -> None:
    student, teacher = torch.randn(3, 2, 2, 2).double() * 2, torch.randn(3, 2, 2, 2).double()
    for n, ours in enumerate(activation_boundary_loss(student, teacher, 0.5, "none")):
        total = 0.0
        for s, t in zip(student[n].flatten().tolist(), teacher[n].flatten().tolist(), strict=True):
            total += max(0.0, 0.5 - s) ** 2 if t > 0 else max(0.0, 0.5 + s) ** 2
        assert float(ours) == pytest.approx(total / 8)


def test_a_neuron_past_the_margin_costs_nothing_and_a_silent_teacher_is_not_active() -> None:
    teacher = torch.tensor([[3.0, -0.1, 0.0]])
    assert activation_boundary_loss(torch.tensor([[1.0, -1.0, -1.0]]), teacher) == 0
    assert activation_boundary_loss(torch.tensor([[1.0, -1.0, 0.0]]), teacher) == pytest.approx(
        1 / 3
    )


def test_the_strength_of_the_teacher_does_not_matter() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(
        activation_boundary_loss(student, teacher),
        activation_boundary_loss(student, teacher.relu() * 7),
    )


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="activation_boundary_loss: the student's shape"):
        activation_boundary_loss(torch.zeros(2, 3), torch.zeros(2, 4))


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(ActivationBoundary())


def test_batch_norm_couples_the_samples() -> None:
    assert ActivationBoundary(norm="batch").couples
    assert not ActivationBoundary().couples
    with pytest.raises(ValueError, match=r"got 'btch'\. Did you mean batch"):
        ActivationBoundary(norm="btch")  # type: ignore[arg-type]


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    compiled = torch.compile(activation_boundary_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), activation_boundary_loss(student, teacher))
