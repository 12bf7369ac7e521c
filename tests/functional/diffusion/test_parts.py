from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.functional.diffusion.loss_weights import loss_weight
from instil.functional.diffusion.parameterisations import (
    PARAMETERISATIONS,
    ConsistencyPrediction,
    EDMPrediction,
    parameterisation,
)
from instil.functional.diffusion.schedules import SCHEDULES, KarrasSchedule, noise_schedule
from instil.functional.diffusion.steps import ddim_clean, ddim_step, guided, noise_of
from instil.functional.diffusion.times import TIME_DISTRIBUTIONS, GridTimes, time_distribution

F64 = torch.float64


def images(seed: int) -> Tensor:
    return torch.randn(5, 1, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_a_target_converts_to_the_clean_image(name: str, schedule_name: str) -> None:
    part, schedule = parameterisation(name), noise_schedule(schedule_name)
    clean, noise = images(0), images(1)
    time = schedule.time_at(torch.linspace(0.1, 0.9, 5, dtype=F64))
    now = schedule.coefficients(time, clean)
    noisy = schedule.add_noise(clean, noise, time)
    assert torch.allclose(noisy, now[0] * clean + now[1] * noise)
    target = part.target(clean, noise, *now)
    assert torch.allclose(part.denoised(target, noisy, *now), clean)
    wrong = target + images(2)
    error = (part.denoised(wrong, noisy, *now) - clean) * part.output_weight(*now).sqrt()
    assert torch.allclose(error.abs(), images(2).abs())


def test_edm_has_the_coefficients_of_the_paper() -> None:
    sigma, data = torch.tensor(3.0, dtype=F64), 0.5
    one = torch.ones_like(sigma)
    skip, out = EDMPrediction(data).skip_and_out(one, sigma)
    norm = 3.0**2 + data**2
    assert skip == pytest.approx(data**2 / norm)
    assert out == pytest.approx(3.0 * data / norm**0.5)
    assert EDMPrediction(data).scale_input(one, one, sigma) == pytest.approx(norm**-0.5)
    skip, out = ConsistencyPrediction(data).skip_and_out(one, sigma)
    assert skip == pytest.approx(data**2 / (2.998**2 + data**2))
    assert out == pytest.approx(data * 2.998 / norm**0.5)
    skip, out = ConsistencyPrediction(data).skip_and_out(one, 0.002 * one)
    assert (skip, out) == (1, 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_consistent(name: str) -> None:
    schedule = noise_schedule(name)
    # Times between those of the table of the linear schedule, whose derivative has jumps.
    time = schedule.time_at(torch.tensor([0.03, 0.3005, 0.6005, 0.9005], dtype=F64))
    ratio = schedule.sigma(time) / schedule.alpha(time)
    assert torch.allclose(schedule.time_of_ratio(ratio), time)
    assert torch.allclose(schedule.snr(time), ratio**-2)
    for function, rate in zip((schedule.alpha, schedule.sigma), schedule.rates(time), strict=True):
        step = 1e-7 * time
        slope = (function(time + step) - function(time - step)) / (2 * step)
        assert torch.allclose(slope, rate, rtol=1e-4, atol=1e-6)
    grid = schedule.grid(4)
    assert grid.shape == (5,)
    assert (grid[0], grid[-1]) == (schedule.max_time, 0)
    assert (grid.diff() < 0).all()
    assert (schedule.alpha(grid[-1]), schedule.sigma(grid[-1])) == (1, 0)


def test_schedules_have_the_values_of_the_papers() -> None:
    linear = noise_schedule("linear")
    share = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(400))
    time = torch.tensor(0.4, dtype=F64)
    assert float(linear.alpha(time)) == pytest.approx(share**0.5)
    assert float(linear.network_time(time)) == pytest.approx(399)
    cosine = noise_schedule("cosine")
    assert float(cosine.snr(torch.tensor(1.0, dtype=F64)).log()) == pytest.approx(-20)
    sigmas = KarrasSchedule(0.002, 80, 7).grid(3)
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert sigmas.tolist() == pytest.approx([80, middle, 0.002, 0])


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", TIME_DISTRIBUTIONS)
def test_times_are_inside_the_range(name: str, schedule_name: str) -> None:
    schedule = noise_schedule(schedule_name)
    time = time_distribution(name).sample(torch.linspace(0, 1 - 2**-24, 100), schedule)
    assert time.dtype == torch.float32
    assert (time >= schedule.min_time * (1 - 1e-6)).all()
    assert (time <= schedule.max_time * (1 + 1e-5)).all()
    assert len(time.unique()) > 4


def test_distributions_of_times_have_their_quantiles() -> None:
    half = torch.tensor([0.5, 0.8413447], dtype=F64)
    karras, flow = noise_schedule("karras"), noise_schedule("flow")
    log_normal = time_distribution("log_normal").sample(half, karras).log()
    assert log_normal.tolist() == pytest.approx([-1.2, 0.0], abs=1e-5)
    logit_normal = time_distribution("logit_normal").sample(half, flow)
    assert logit_normal.tolist() == pytest.approx([0.5005, 0.7313], abs=1e-3)
    grid = GridTimes(4).sample(torch.tensor([0.0, 0.3, 0.99], dtype=F64), flow)
    assert grid.tolist() == [1.0, 0.75, 0.25]


def test_loss_weights_by_hand() -> None:
    alpha, sigma = torch.tensor([0.6, 0.8], dtype=F64), torch.tensor([0.8, 0.6], dtype=F64)
    snr = [0.5625, 0.64 / 0.36]
    velocity = parameterisation("v")
    expected = {
        "one": [1, 1],
        "snr": snr,
        "snr_plus_one": [1 + value for value in snr],
        "truncated_snr": [1, snr[1]],
        "min_snr": [snr[0], 1.0],
        "edm": [4 + value for value in snr],
        # For a schedule that preserves the variance, v has the weight SNR + 1.
        "output": [1 + value for value in snr],
    }
    for name, values in expected.items():
        weight = loss_weight(name, alpha, sigma, velocity, gamma=1.0)  # type: ignore[arg-type]
        assert weight.tolist() == pytest.approx(values), name


def test_one_ddim_step_and_its_inverse() -> None:
    schedule = noise_schedule("cosine")
    clean, noise = images(0), images(1)
    times = torch.tensor([0.7, 0.4], dtype=F64)
    now, after = (schedule.coefficients(time, clean) for time in times)
    noisy, expected = (schedule.add_noise(clean, noise, time) for time in times)
    assert torch.allclose(noise_of(noisy, clean, now), noise)
    stepped = ddim_step(noisy, clean, now, after)
    assert torch.allclose(stepped, expected)
    assert torch.allclose(ddim_clean(noisy, stepped, now, after), clean)


def test_guidance_of_each_sample() -> None:
    conditional, unconditional = images(0), images(1)
    weight = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    result = guided(conditional, unconditional, weight)
    for i in range(5):
        expected = (1 + i) * conditional[i] - i * unconditional[i]
        assert torch.allclose(result[i], expected)


def test_unknown_names_have_a_clear_error() -> None:
    with pytest.raises(
        ValueError, match=r"parameterisation: .*'velocity'. Expected one of eps, x0"
    ):
        parameterisation("velocity")
    with pytest.raises(ValueError, match=r"'cosin'.*Did you mean.*cosine"):
        noise_schedule("cosin")
    with pytest.raises(ValueError, match=r"times: .*Expected one of uniform"):
        time_distribution("normal")
    with pytest.raises(ValueError, match=r"times.men: log_normal has no such option.*mean"):
        time_distribution({"type": "log_normal", "men": 0})
    with pytest.raises(ValueError, match=r"schedule.rho: cosine has no such option. Expected none"):
        noise_schedule({"type": "cosine", "rho": 7})
    with pytest.raises(ValueError, match=r"sigma_data: Expected a number above 0, got 0"):
        parameterisation({"type": "edm", "sigma_data": 0})
    with pytest.raises(ValueError, match=r"schedule.max_time - schedule.min_time: Expected"):
        noise_schedule({"type": "karras", "max_time": 0.001})
    with pytest.raises(ValueError, match="weight: unknown loss weight 'snr2'"):
        loss_weight("snr2", *torch.ones(2, 1), parameterisation("v"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"steps: .*at least 1, got 0"):
        noise_schedule("flow").grid(0)


def test_parts_have_options() -> None:
    assert noise_schedule({"type": "karras", "max_time": 20}).max_time == 20
    half = torch.tensor([0.5], dtype=F64)
    times = time_distribution({"type": "log_normal", "mean": 0.5}).sample(
        half, noise_schedule("karras")
    )
    assert times.log().item() == pytest.approx(0.5, abs=1e-5)
    edm = parameterisation({"type": "consistency", "sigma_data": 1.0, "min_ratio": 0.1})
    one = torch.ones(1)
    assert torch.equal(edm.denoised(one, 2 * one, one, 0.1 * one), 2 * one)
