"""Knowledge adaptation against loops over lists."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.features.kta import KTA, Form, kta_affinity_loss, kta_loss

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = torch.randn(2, 3, 2, 2, generator=GENERATOR, dtype=torch.float64)
TEACHER = torch.randn(2, 3, 2, 2, generator=GENERATOR, dtype=torch.float64)


def norm(values: list[float], order: float) -> float:
    total = sum(abs(value) ** order for value in values)
    return math.pow(total, 1 / order)


def unit(values: list[float], order: float = 2.0) -> list[float]:
    return [value / norm(values, order) for value in values]


@pytest.mark.parametrize(("p", "q"), [(1.0, 2.0), (2.0, 2.0), (3.0, 1.0)])
def test_features_are_compared_as_in_lists(p: float, q: float) -> None:
    values = kta_loss(STUDENT, TEACHER, p, q, "none")
    for i in range(2):
        sides = (unit(side[i].flatten().tolist(), q) for side in (STUDENT, TEACHER))
        difference = [a - b for a, b in zip(*sides, strict=True)]
        expected = norm(difference, p) / (len(difference) if p == 1 else 1)
        assert float(values[i]) == pytest.approx(expected, rel=1e-9)


def cosines(rows: list[list[float]]) -> list[float]:
    units = [unit(row) for row in rows]
    return [sum(a * b for a, b in zip(x, y, strict=True)) for x in units for y in units]


def test_affinities_of_positions_are_their_cosines() -> None:
    values = kta_affinity_loss(STUDENT, TEACHER, reduction="none")
    for i in range(2):
        sides = (cosines(side[i].flatten(1).T.tolist()) for side in (STUDENT, TEACHER))
        squares = [(a - b) ** 2 for a, b in zip(*sides, strict=True)]
        assert float(values[i]) == pytest.approx(sum(squares) / 16, rel=1e-9)


def test_affinities_of_channels_are_outer_products() -> None:
    values = kta_affinity_loss(STUDENT, TEACHER, "channels", "none")
    for i in range(2):
        expected = 0.0
        for c in range(3):
            u, v = (unit(side[i, c].flatten().tolist()) for side in (STUDENT, TEACHER))
            squares = [((u[j] * u[k] - v[j] * v[k]) / 4) ** 2 for j in range(4) for k in range(4)]
            expected += math.sqrt(sum(squares))
        assert float(values[i]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["positions", "channels"])
def test_gradients_are_those_of_central_differences(form: Form) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: kta_affinity_loss(s, TEACHER, form), student)
    assert torch.autograd.gradcheck(lambda s: kta_loss(s, TEACHER, 2.0), student)


@pytest.mark.parametrize("form", ["positions", "channels"])
def test_a_match_costs_nothing_and_has_a_finite_gradient(form: Form) -> None:
    student = STUDENT.clone().requires_grad_()
    value = kta_affinity_loss(student, STUDENT, form)
    (gradient,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-12)
    assert torch.isfinite(gradient).all()


def test_only_the_reconstruction_trains_the_autoencoder() -> None:
    objective = KTA(reconstruction=0.0)
    outputs = [{"features": (side.float(),)} for side in (STUDENT, TEACHER)]
    objective.build(*outputs)
    objective(*outputs, {"index": torch.arange(2)}).sum().backward()
    nets = objective.adapters[0]
    for name, parameter in nets.named_parameters():
        gradient = parameter.grad
        is_adapter = name.startswith(("translator", "affinity_adapter"))
        has_gradient = gradient is not None and bool(gradient.abs().sum() > 0)
        assert has_gradient == is_adapter, name


def test_invalid_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="form: unknown value"):
        kta_affinity_loss(STUDENT, TEACHER, "pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kta_loss"):
        kta_loss(STUDENT, TEACHER[:, :2])
    one = {"features": (torch.randn(2, 3, 1, 1),)}
    with pytest.raises(ValueError, match="a level has no affinities"):
        KTA().build(one, one)
