from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from instil.core import Objectives
from instil.objectives.labels.denoising import Denoising
from instil.schemes.diffusion.scm import SCM
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher


def scheme(is_taught: bool = True, **options: Any) -> SCM:
    return SCM(denoiser(), teacher() if is_taught else None, matching(), **options)


def test_contracts() -> None:
    # The length of the normalised tangent does not fall.
    def make() -> SCM:
        objectives = {"denoising": Denoising(), **matching()}
        return SCM(denoiser(), teacher(), Objectives(objectives, {"matching": 0.01}))

    check_scheme(make, batch)


@pytest.mark.parametrize("is_taught", [True, False])
def test_the_tangent_in_the_form_of_the_paper(is_taught: bool) -> None:
    """The terms of Algorithm 1, with the derivative of F by finite differences."""
    it = prepared(scheme(is_taught, warm_up=0.0)).double()
    data = clocked() | {"image": clocked()["image"].double()}
    sample = it.draw(data)
    time = sample.time.double()
    noisy = it.schedule.add_noise(sample.clean, sample.noise, time)
    sample = replace(sample, time=time, noisy=noisy)
    clean = sample.clean
    if is_taught:
        clean = it.teacher_denoised(sample.noisy, sample.time, sample.label)
    sd = it.sigma_data
    top = math.atan(math.exp(10))

    def wide(values: torch.Tensor) -> torch.Tensor:
        return values.view(-1, 1, 1, 1)

    # The point of the path of TrigFlow, and its derivative by the angle.
    angle = torch.atan2((top * sample.time).sin(), sd * (top * sample.time).cos())
    noise = (sample.noisy - (top * wide(sample.time)).cos() * clean) / (
        (top * wide(sample.time)).sin()
    )
    x = wide(angle).cos() * clean + wide(angle).sin() * sd * noise
    slope = wide(angle).cos() * sd * noise - wide(angle).sin() * clean

    def network(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        time = torch.atan(sd * angle.tan()) / top
        alpha = wide((top * time).cos())
        denoised = it.run_student(x * alpha / wide(angle).cos(), time, sample.label)["denoised"]
        return (wide(angle).cos() * x - denoised) / (sd * wide(angle).sin())

    inner = (sample.time > 0.05) & (sample.time < 0.95)
    assert inner.sum() > 8
    h = 1e-5
    derivative = (network(x + h * slope, angle + h) - network(x - h * slope, angle - h)) / (2 * h)
    cos, sin = wide(angle).cos(), wide(angle).sin()
    g = -(cos**2) * (sd * network(x, angle) - slope) - cos * sin * (x + sd * derivative)
    g = g / (wide(g.flatten(1).norm(dim=1)) + 0.1)
    tangent = it.tangent(sample.noisy, sample.time, sample.label, clean, data)
    assert torch.allclose(tangent[inner], g[inner], atol=1e-4)
    student, target = it.forward_both(data)
    moved = network(x, angle) + tangent
    values = (student["compared"] - target["compared"]).square().flatten(1).mean(1)
    expected = (network(x, angle) - moved).square().flatten(1).mean(1)
    assert torch.allclose(values[inner], expected[inner], rtol=5e-3)
    # The gradient is that of F.
    (gradient,) = torch.autograd.grad(values[inner].sum(), it.student.model.network.model.stem.bias)
    difference = (network(x, angle) - moved.detach()).square().flatten(1).mean(1)[inner].sum()
    (other,) = torch.autograd.grad(difference, it.student.model.network.model.stem.bias)
    assert torch.allclose(gradient, other, rtol=1e-2, atol=1e-6)


def test_the_derivative_of_the_network_gains_its_weight() -> None:
    it = prepared(scheme(warm_up=0.5))
    sample = it.draw(clocked())
    clean = it.teacher_denoised(sample.noisy, sample.time, sample.label)
    denoised = it.run_student(sample.noisy, sample.time, sample.label)["denoised"].detach()
    angle = it.angle(sample.time).view(-1, 1, 1, 1)
    first = angle.cos() ** 2 * (denoised - clean) / angle.sin()
    first = first / (first.flatten(1).norm(dim=1) + 0.1).view(-1, 1, 1, 1)
    arguments = sample.noisy, sample.time, sample.label, clean
    start = it.tangent(*arguments, clocked(progress=0.0))
    assert torch.allclose(start, first, atol=1e-5)
    half, end = (it.tangent(*arguments, clocked(progress=p)) for p in (0.5, 1.0))
    assert torch.equal(half, end)
    assert not torch.allclose(half, start, atol=1e-3)
