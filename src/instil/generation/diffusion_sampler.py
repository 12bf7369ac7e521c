"""Sampling of images from diffusion models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.diffusion.steps import ddim_step
from instil.modules.denoiser import SOLVERS, Denoiser

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(noisy, time, next_time) -> clean images``; the times are scalars."""


def solve(
    denoise: Denoise,
    schedule: NoiseSchedule,
    noise: Tensor,
    times: Tensor,
    solver: str = "ddim",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Integrate the probability flow of a diffusion model from noise to images.

    - ``ddim``: Song et al. 2021; Euler steps of the flow and karras schedules;
    - ``euler``: Euler steps in time;
    - ``heun``: second-order steps in time (Karras et al. 2022, algorithm 1), two calls per step
      except the last;
    - ``dpm_solver``: DPM-Solver++ (2M) (Lu et al. 2022, algorithm 2);
    - ``consistency``: fresh noise after each step (Song et al. 2023, algorithm 1).

    Args:
        denoise: denoising function.
        schedule: noise schedule.
        noise: noise at ``times[0]`` (N, ...), scaled as the noisy images are.
        times: (steps + 1,), from the largest to 0, such as ``schedule.grid(steps)``.
        solver: name of the solver.
        generator: random generator of ``consistency``; None: that of torch.

    Returns:
        Images (N, ...).

    Raises:
        ValueError: for an unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver: unknown '{solver}'. Expected one of {', '.join(SOLVERS)}")
    times = times.to(noise)
    previous: Tensor | None = None
    noisy = noise
    for i in range(len(times) - 1):
        now, after = times[i], times[i + 1]
        denoised = denoise(noisy, now, after)
        if solver in ("euler", "heun"):
            noisy = _euler_or_heun(denoise, schedule, noisy, denoised, now, after, solver == "heun")
            continue
        if solver == "consistency":
            fresh = torch.empty_like(noisy).normal_(generator=generator)
            noisy = schedule.add_noise(denoised, fresh, after)
            continue
        used = denoised
        if solver == "dpm_solver" and previous is not None and i < len(times) - 2:
            used = _second_order(schedule, denoised, previous, times[i - 1], now, after)
        coefficients = schedule.coefficients(now, noisy), schedule.coefficients(after, noisy)
        noisy = ddim_step(noisy, used, *coefficients)
        previous = denoised
    return noisy


def sample_images(
    denoiser: Denoiser,
    noise: Tensor,
    label: Tensor | None = None,
    *,
    steps: int | None = None,
    solver: str | None = None,
    guidance: Tensor | float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images of a denoiser in [-1, 1], not clamped.

    A network that reads ``end_time`` receives the time that each step ends at.

    Args:
        denoiser: the model.
        noise: standard normal noise (N, C, H, W).
        label: classes (N,); None for no class.
        steps: number of steps; None: ``denoiser.steps``.
        solver: name of the solver; None: ``denoiser.solver``.
        guidance: weight of classifier-free guidance; None: ``denoiser.guidance``.
        generator: random generator of the solver ``consistency``.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for fewer than one step, an unknown solver, or guidance without classes.
    """
    weight = denoiser.guidance if guidance is None else guidance
    schedule = denoiser.schedule
    times = schedule.grid(denoiser.steps if steps is None else steps)

    def denoise(noisy: Tensor, time: Tensor, end_time: Tensor) -> Tensor:
        scalars = {"end_time": end_time} if "end_time" in denoiser.scalars else {}
        return denoiser.denoise(noisy, time, label, weight, **scalars)

    start = schedule.sigma(times[0]).to(noise.dtype) * noise
    return solve(denoise, schedule, start, times, solver or denoiser.solver, generator)


def _euler_or_heun(
    denoise: Denoise,
    schedule: NoiseSchedule,
    noisy: Tensor,
    denoised: Tensor,
    now: Tensor,
    after: Tensor,
    is_second_order: bool,
) -> Tensor:
    """One step in time; the last step of Heun's method is an Euler step."""
    velocity = schedule.velocity(noisy, denoised, now)
    result = noisy + (after - now) * velocity
    if is_second_order and after > 0:
        corrected = schedule.velocity(result, denoise(result, after, after), after)
        result = noisy + (after - now) * (velocity + corrected) / 2
    return result


def _second_order(
    schedule: NoiseSchedule,
    denoised: Tensor,
    previous: Tensor,
    before: Tensor,
    now: Tensor,
    after: Tensor,
) -> Tensor:
    """Extrapolated clean image of DPM-Solver++ (2M)."""
    log_snr = [schedule.snr(time).log() / 2 for time in (before, now, after)]
    # 0 for a first step that starts without signal, whose length is infinite.
    factor = (log_snr[2] - log_snr[1]) / (2 * (log_snr[1] - log_snr[0]))
    return denoised + factor * (denoised - previous)
