from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Objectives
from instil.generation.diffusion_sampler import sample_images
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.schemes.diffusion.mean_flow import MeanFlow
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher

FLOW = {"schedule": "flow", "parameterisation": "flow"}


def scheme(is_taught: bool = False, **options: Any) -> MeanFlow:
    student = denoiser(scalars=("end_time",), **FLOW)
    return MeanFlow(student, teacher(**FLOW) if is_taught else None, matching(), **options)


def test_contracts() -> None:
    # The loss is a sum over the pixels, which the learning rate of the contract does not fit.
    def make() -> MeanFlow:
        objectives = Objectives(matching(), {"matching": 0.02})
        return MeanFlow(denoiser(scalars=("end_time",), **FLOW), None, objectives, power=0.0)

    check_scheme(make, batch)


@pytest.mark.parametrize("is_taught", [True, False])
def test_the_target_by_finite_differences(is_taught: bool) -> None:
    it = prepared(scheme(is_taught, different=1.0)).double()
    data = clocked() | {"image": clocked()["image"].double()}
    sample = it.draw(data)
    time, end_time = it.draw_times(data, sample)
    assert (end_time < time).all()
    noisy = it.schedule.add_noise(sample.clean, sample.noise, time)
    velocity = sample.noise - sample.clean
    if is_taught:
        denoised = it.teacher_denoised(noisy, time, sample.label)
        velocity = (noisy - denoised) / time.view(-1, 1, 1, 1)
    assert torch.allclose(it.velocity(sample, noisy, time), velocity)

    def predict(shift: float) -> Tensor:
        moved = noisy + shift * velocity
        outputs = it.run_student(moved, time + shift, sample.label, end_time=end_time)
        return outputs["prediction"]

    derivative = (predict(1e-4) - predict(-1e-4)) / 2e-4
    expected = velocity - (time - end_time).view(-1, 1, 1, 1) * derivative
    target = it.target_velocity(noisy, time, end_time, velocity, sample.label)
    assert torch.allclose(target, expected, atol=1e-5)
    student, images = it.forward_both(data)
    # The loss is the squared error of the velocity over a power of itself.
    error = (student["prediction"] - target).square().flatten(1).sum(1)
    assert student["compared"] is student["prediction"]
    assert torch.allclose(images["compared"], target, atol=1e-5)
    values = (student["compared"] - target).square().flatten(1).mean(1)
    assert torch.allclose(values * images["loss_weight"], error / (error + 1e-3))


def test_a_share_of_the_samples_has_one_time() -> None:
    it = scheme(different=0.5)
    time, end_time = it.draw_times(clocked(), it.draw(clocked()))
    share = (time == end_time).float().mean()
    assert 0.2 < float(share) < 0.8
    assert (end_time <= time).all()


class Line(nn.Module):
    """Mean velocity of the paths to an image of ones: the same for all times."""

    scalars = ("end_time",)

    def forward(self, noisy: Tensor, time: Tensor, end_time: Tensor) -> Tensor:
        return (noisy - 1) / (time / 1000).view(-1, 1, 1, 1)


def test_the_sampler_takes_any_number_of_steps() -> None:
    model = Denoiser(Line(), **FLOW)
    assert Net(model, denoiser_call).model.scalars == ("end_time",)
    for steps in (1, 3):
        images = sample_images(model, torch.randn(2, 1, 4, 4), steps=steps)
        assert torch.allclose(images, torch.ones_like(images), atol=1e-5)


def test_other_students_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student.options: .* got cosine and v"):
        MeanFlow(denoiser(scalars=("end_time",)), None, matching())
    with pytest.raises(ValueError, match=r"Set scalars: \[end_time\]"):
        MeanFlow(denoiser(**FLOW), None, matching())


def test_guidance_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"scheme\.guidance: .* Expected 0, got 2\.0"):
        prepared(scheme(guidance=2.0))
    assert prepared(scheme(is_taught=True, guidance=2.0)).guidance == 2.0
