"""Distributions of the training times of diffusion models."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from instil.core import Batch
from instil.functional.diffusion.noise_schedule import NoiseSchedule, check_steps
from instil.functional.diffusion.parts import PartSpec, build_part, require_positive
from instil.functional.keyed_random import keyed_index


class TimeDistribution(ABC):
    """Base class of distributions of times.

    Attributes:
        name: name in a recipe.
    """

    name: str

    @abstractmethod
    def sample(self, uniforms: Tensor, schedule: NoiseSchedule) -> Tensor:
        """Times of a schedule.

        Args:
            uniforms: uniform numbers (N,) in [0, 1).
            schedule: noise schedule.

        Returns:
            (N,), from ``schedule.min_time`` to ``schedule.max_time``.
        """


class UniformTimes(TimeDistribution):
    """Uniform distribution of the share that ``NoiseSchedule.time_at`` reads."""

    name = "uniform"

    def sample(self, uniforms: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.time_at(uniforms)


class LogNormalTimes(TimeDistribution):
    """Log-normal distribution of ``sigma / alpha`` (Karras et al. 2022, table 1).

    Args:
        mean: mean of the logarithm.
        std: standard deviation of the logarithm.
    """

    name = "log_normal"

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        require_positive("times.std", std)
        self.mean = mean
        self.std = std

    def sample(self, uniforms: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.time_of_ratio((self.mean + self.std * _normal(uniforms)).exp())


class LogitNormalTimes(TimeDistribution):
    """Logit-normal distribution of the share of the time range (Esser et al. 2024, Eq. 19).

    Args:
        mean: mean of the logit.
        std: standard deviation of the logit.
    """

    name = "logit_normal"

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        require_positive("times.std", std)
        self.mean = mean
        self.std = std

    def sample(self, uniforms: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.time_at((self.mean + self.std * _normal(uniforms)).sigmoid())


class GridTimes(TimeDistribution):
    """Uniform distribution of the times of a sampler, without time 0.

    Args:
        steps: number of steps of the sampler.
    """

    name = "grid"

    def __init__(self, steps: int = 32) -> None:
        check_steps(steps)
        self.steps = steps

    def sample(self, uniforms: Tensor, schedule: NoiseSchedule) -> Tensor:
        grid = schedule.grid(self.steps).to(uniforms)
        # Rounding may reach the number of steps itself.
        return grid[(uniforms * self.steps).long().clamp_max(self.steps - 1)]


TIME_DISTRIBUTIONS: dict[str, type[TimeDistribution]] = {
    kind.name: kind for kind in (UniformTimes, LogNormalTimes, LogitNormalTimes, GridTimes)
}
"""Distributions of times by name."""


def time_distribution(spec: PartSpec) -> TimeDistribution:
    """Distribution of times.

    Args:
        spec: ``uniform``, ``log_normal``, ``logit_normal`` or ``grid``; or the options of its class
            with ``type``, such as ``{"type": "log_normal", "mean": -0.4}``.

    Raises:
        ValueError: for an unknown name or option.
    """
    return build_part("times", spec, TIME_DISTRIBUTIONS)


def random_interval(batch: Batch, schedule: NoiseSchedule, num_steps: int) -> tuple[Tensor, Tensor]:
    """Start and end of a random step of a sampler for each image.

    Args:
        batch: batch of the step.
        schedule: noise schedule.
        num_steps: number of steps of the sampler.

    Returns:
        Times (N,) and smaller times (N,) of ``schedule.grid(num_steps)``.
    """
    index = keyed_index(batch, num_steps, "scheme.interval")
    grid = schedule.grid(num_steps).to(index.device, torch.float32)
    return grid[index], grid[index + 1]


def _normal(uniforms: Tensor) -> Tensor:
    # The middle of each cell of the uniform numbers: 0 and 1 would give infinities.
    return (2 * uniforms - 1 + 2**-24).erfinv() * 2**0.5
