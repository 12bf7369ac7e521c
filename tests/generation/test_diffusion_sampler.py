from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.functional.diffusion.schedules import SCHEDULES, noise_schedule
from instil.generation.diffusion_sampler import sample_images, solve
from instil.modules.denoiser import Denoiser

MEAN, STD = 0.3, 0.5


class Gaussian(nn.Module):
    """Perfect denoiser of images with independent normal pixels, with a bias per class."""

    def __init__(self, schedule: str):
        super().__init__()
        self.schedule = noise_schedule(schedule)
        self.calls = 0

    def denoise(self, noisy: Tensor, time: Tensor, _: Tensor | None = None) -> Tensor:
        self.calls += 1
        alpha, sigma = self.schedule.coefficients(time, noisy)
        variance = (alpha * STD) ** 2 + sigma**2
        return MEAN + alpha * STD**2 / variance * (noisy - alpha * MEAN)


def exact(noise: Tensor) -> Tensor:
    """Solution of the probability flow: the quantile of the noise in the data."""
    return MEAN + STD * noise


def error(schedule: str, solver: str, steps: int) -> float:
    model = Gaussian(schedule)
    noise = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = model.schedule.grid(steps)
    alpha, sigma = model.schedule.coefficients(times[0], noise)
    # The marginal of the data at the largest time, which for karras is not quite noise.
    start = alpha * MEAN + ((alpha * STD) ** 2 + sigma**2).sqrt() * noise
    result = solve(model.denoise, model.schedule, start, times, solver)
    return float((result - exact(noise)).abs().max())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("solver", "factor"), [("ddim", 0.65), ("heun", 0.5), ("dpm_solver", 0.65)]
)
def test_a_solver_converges_to_the_probability_flow(
    schedule: str, solver: str, factor: float
) -> None:
    if (schedule, solver) == ("linear", "heun"):
        pytest.skip("the derivative in time is infinite at time 0")
    coarse, fine = error(schedule, solver, 32), error(schedule, solver, 64)
    assert fine < 0.08
    # Straight lines between the times of a table of betas leave a small error.
    assert fine < max(coarse * factor, 2e-3 if schedule == "betas" else 0)


@pytest.mark.parametrize("schedule", ["flow", "karras"])
def test_euler_is_ddim_on_straight_schedules(schedule: str) -> None:
    assert error(schedule, "euler", 5) == pytest.approx(error(schedule, "ddim", 5), rel=1e-9)


def test_second_order_solvers_are_closer_at_few_steps() -> None:
    for schedule in ("cosine", "karras"):
        assert error(schedule, "heun", 16) < error(schedule, "euler", 16)
        assert error(schedule, "dpm_solver", 16) < error(schedule, "ddim", 16)


def test_consistency_sampling_adds_fresh_noise_of_a_generator() -> None:
    schedule = noise_schedule("karras")
    noise = torch.randn(3, 1, 2, 2)

    def half(noisy: Tensor, time: Tensor, end_time: Tensor) -> Tensor:
        return noisy / 2

    def run(steps: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return solve(half, schedule, noise, schedule.grid(steps), "consistency", generator)

    assert torch.equal(run(1, 0), noise / 2)
    assert torch.equal(run(2, 0), run(2, 0))
    assert not torch.equal(run(2, 0), run(2, 1))
    generator = torch.Generator().manual_seed(0)
    fresh = torch.empty_like(noise).normal_(generator=generator)
    expected = (noise / 2 + schedule.grid(2)[1].float() * fresh) / 2
    assert torch.allclose(run(2, 0), expected)


class Constant(nn.Module):
    """Network that predicts the number of its class."""

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return torch.zeros_like(noisy) + label.view(-1, 1, 1, 1)


def test_images_of_a_class_are_guided() -> None:
    denoiser = Denoiser(Constant(), "x0", "flow", num_classes=3, steps=2, guidance=1.0)
    noise, label = torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 2])
    # Guidance 1: twice the prediction of the class minus that of no label, which is 3.
    expected = (2 * label - 3.0).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    assert torch.allclose(sample_images(denoiser, noise, label), expected)
    unguided = sample_images(denoiser, noise, label, guidance=0.0, steps=1)
    assert torch.allclose(unguided[:, 0, 0, 0], label.float())


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="solver: unknown 'rk45'"):
        solve(lambda x, t, s: x, noise_schedule("flow"), torch.ones(1), torch.ones(2), "rk45")
