from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Outputs
from instil.objectives.features.patient_kd import PatientKD, patient_kd_loss


@pytest.mark.parametrize("normalize", [True, False])
def test_agrees_with_a_plain_loop(normalize: bool) -> None:
    student, teacher = (
        torch.randn(3, 2, 5, dtype=torch.float64),
        torch.randn(3, 2, 5, dtype=torch.float64),
    )
    for n in range(3):
        total = 0.0
        for layer in range(2):
            s, t = student[n, layer].numpy(), teacher[n, layer].numpy()
            if normalize:
                s, t = s / np.sqrt((s**2).sum()), t / np.sqrt((t**2).sum())
            total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
        assert np.isclose(
            patient_kd_loss(student, teacher, normalize, "none")[n], total / (2 * 5), rtol=1e-12
        )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("skip", [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        ("last", [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
        ([[6, 12]], [(6, 12)]),
    ],
)
def test_layers_of_the_paper(layers: object, expected: list[tuple[int, int]]) -> None:
    """Six of twelve layers: PKD-Skip and PKD-Last."""
    assert PatientKD(layers).choose(6, 12) == expected  # type: ignore[arg-type]


def test_rules_that_leave_no_layer_are_errors() -> None:
    with pytest.raises(ValueError, match=r"'skip' leaves no pairs.*got 1 student layers and 4"):
        PatientKD().choose(1, 4)
    with pytest.raises(
        ValueError, match=r"'last' leaves no pairs.*got 6 student layers and 4 teacher layers"
    ):
        PatientKD("last").choose(6, 4)
    with pytest.raises(
        ValueError, match=r"layers: unknown value. Expected skip, last.*got 'first'"
    ):
        PatientKD("first").choose(6, 12)  # type: ignore[arg-type]


def test_only_the_first_token_of_the_layers_is_read() -> None:
    def outputs(layers: int) -> Outputs:
        return {
            "hidden_states": tuple(
                torch.randn(2, 4, 6, requires_grad=True) for _ in range(layers + 1)
            )
        }

    student, teacher = outputs(3), outputs(6)
    objective = PatientKD()
    objective.build(student, teacher)
    objective(student, teacher, {}).sum().backward()
    has_gradient = [
        state.grad is not None and bool(state.grad.abs().sum())
        for state in student["hidden_states"]
    ]
    assert has_gradient == [False, True, True, False]
    assert all(
        state.grad[:, 1:].abs().sum() == 0
        for state in student["hidden_states"]
        if state.grad is not None
    )


def test_a_state_of_zeros_is_finite() -> None:
    student = torch.zeros(2, 1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(patient_kd_loss(student, torch.randn(2, 1, 3)), student)
    assert torch.isfinite(gradient).all()


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    compiled = torch.compile(patient_kd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), patient_kd_loss(student, teacher))
