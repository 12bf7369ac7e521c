from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.features.srd import SRD, batch_norm, srd_correlation_loss, srd_loss


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3, 4, dtype=torch.float64),
    )
    for power in (1.0, 2.5, 4.0):
        total = sum(
            abs(float(student[n, d] - teacher[n, d])) ** power for n in range(3) for d in range(4)
        )
        assert np.isclose(srd_loss(student, teacher, power), math.log(total), rtol=1e-12)
        correlations = [
            sum(float(student[n, d] * teacher[n, d]) for n in range(3)) / 3 for d in range(4)
        ]
        total = sum(abs(c - 1) ** power for c in correlations)
        assert np.isclose(
            srd_correlation_loss(student, teacher, power), math.log(total + 1e-5), rtol=1e-12
        )


def test_the_norm_is_that_of_a_layer_without_affine() -> None:
    features = 3 * torch.randn(8, 4) + 2
    assert torch.allclose(
        batch_norm(features),
        torch.nn.functional.batch_norm(features, None, None, training=True, eps=1e-4),
        atol=1e-6,
    )
    assert torch.equal(batch_norm(features[:1]), torch.zeros(1, 4))


@pytest.mark.parametrize("form", ["difference", "correlation"])
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0])
def test_a_match_is_finite(form: str, scale: float) -> None:
    student = (scale * torch.randn(4, 3)).requires_grad_()
    loss = (srd_loss if form == "difference" else srd_correlation_loss)(student, student.detach())
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_the_projected_student_is_compared() -> None:
    student, teacher = {"embedding": torch.randn(6, 3)}, {"embedding": torch.randn(6, 5)}
    for form, loss in (("difference", srd_loss), ("correlation", srd_correlation_loss)):
        objective = SRD(form=form)  # type: ignore[arg-type]
        objective.build(student, teacher)
        expected = loss(
            batch_norm(objective.projector(student["embedding"])), batch_norm(teacher["embedding"])
        )
        assert torch.allclose(objective(student, teacher, {}), expected)


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"form: unknown value.*got 'corelation'. Did you mean correlation"
    ):
        SRD(form="corelation")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    for loss in (srd_loss, srd_correlation_loss):
        assert torch.allclose(
            torch.compile(loss, fullgraph=True, backend="eager")(student, teacher),
            loss(student, teacher),
        )
