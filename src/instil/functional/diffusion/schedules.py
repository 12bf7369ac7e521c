"""Noise schedules of diffusion models."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.functional.diffusion.noise_schedule import NoiseSchedule, check_steps
from instil.functional.diffusion.parts import PartSpec, build_part, require_positive


class CosineSchedule(NoiseSchedule):
    """Variance-preserving cosine schedule (Salimans and Ho 2022, section 2).

    ``alpha = cos(a t)`` and ``sigma = sin(a t)``; the angle ``a`` ends at a log-SNR of -20.
    """

    name = "cosine"
    angle = math.atan(math.exp(10))

    def alpha(self, time: Tensor) -> Tensor:
        return (self.angle * time).cos()

    def sigma(self, time: Tensor) -> Tensor:
        return (self.angle * time).sin()

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return -self.angle * self.sigma(time), self.angle * self.alpha(time)

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return (ratio.atan() / self.angle).clamp(self.min_time, self.max_time)


class FlowSchedule(NoiseSchedule):
    """Straight path from image to noise (Liu et al. 2023): ``alpha = 1 - t``, ``sigma = t``."""

    name = "flow"
    ends_in_noise = True

    def alpha(self, time: Tensor) -> Tensor:
        return 1 - time

    def sigma(self, time: Tensor) -> Tensor:
        return time

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(time), torch.ones_like(time)

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return (ratio / (1 + ratio)).clamp(self.min_time, self.max_time)


class LinearBetaSchedule(NoiseSchedule):
    """Variance-preserving schedule with linear betas (Ho et al. 2020, section 4).

    Time ``(i + 1) / num_times`` is step ``i`` of the paper's code; times between two steps are
    interpolated in the logarithm of the signal variance.

    Args:
        num_times: number of discrete times.
        first_beta: beta of the first time.
        last_beta: beta of the last time.
    """

    name = "linear"

    def __init__(
        self, num_times: int = 1000, first_beta: float = 1e-4, last_beta: float = 0.02
    ) -> None:
        self.num_times = num_times
        betas = torch.linspace(first_beta, last_beta, num_times, dtype=torch.float64)
        log_variance = torch.cat([torch.zeros(1, dtype=torch.float64), (-betas).log1p().cumsum(0)])
        self.log_variance = log_variance

    def network_time(self, time: Tensor) -> Tensor:
        return self.num_times * time - 1

    def _log_variance(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the signal variance, and its derivative."""
        table = self.log_variance.to(time)
        position = time * self.num_times
        # Ceiling: at a discrete time the derivative is that of the interval of smaller times.
        upper = position.detach().ceil().clamp(1, self.num_times)
        index = upper.long()
        slope = table[index] - table[index - 1]
        return table[index] + (position - upper) * slope, slope * self.num_times

    def alpha(self, time: Tensor) -> Tensor:
        return (self._log_variance(time)[0] / 2).exp()

    def sigma(self, time: Tensor) -> Tensor:
        # expm1 keeps the small variance of the first times.
        return (-self._log_variance(time)[0].expm1()).sqrt()

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.alpha(time), self.sigma(time)
        alpha_rate = alpha * self._log_variance(time)[1] / 2
        return alpha_rate, -alpha * alpha_rate / sigma

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        log_variance = -ratio.square().log1p()
        table = self.log_variance.to(ratio)
        # The table decreases, so it is searched with the opposite sign.
        upper = torch.searchsorted(-table, -log_variance.contiguous()).clamp(1, self.num_times)
        share = (log_variance - table[upper - 1]) / (table[upper] - table[upper - 1])
        time = (upper - 1 + share) / self.num_times
        return time.clamp(self.min_time, self.max_time)


class KarrasSchedule(NoiseSchedule):
    """Variance-exploding schedule of EDM (Karras et al. 2022, Eq. 5): ``alpha = 1``, ``sigma = t``.

    Args:
        min_time: smallest standard deviation of the noise before time 0.
        max_time: largest standard deviation.
        rho: exponent of the grid of times.

    Raises:
        ValueError: unless ``0 < min_time < max_time`` and ``rho > 0``.
    """

    name = "karras"

    def __init__(self, min_time: float = 0.002, max_time: float = 80.0, rho: float = 7.0) -> None:
        require_positive("schedule.min_time", min_time)
        require_positive("schedule.max_time - schedule.min_time", max_time - min_time)
        require_positive("schedule.rho", rho)
        self.min_time = min_time
        self.max_time = max_time
        self.rho = rho

    def network_time(self, time: Tensor) -> Tensor:
        return 250 * time.clamp_min(self.min_time).log()

    def alpha(self, time: Tensor) -> Tensor:
        return torch.ones_like(time)

    def sigma(self, time: Tensor) -> Tensor:
        return time

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(time), torch.ones_like(time)

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(self.min_time, self.max_time)

    def time_at(self, share: Tensor) -> Tensor:
        """Time at a share of the way in ``t ** (1 / rho)``."""
        low = self.min_time ** (1 / self.rho)
        high = self.max_time ** (1 / self.rho)
        time: Tensor = (low + share * (high - low)) ** self.rho
        return time

    def middle(self, start: Tensor, end: Tensor) -> Tensor:
        root = (start ** (1 / self.rho) + end ** (1 / self.rho)) / 2
        time: Tensor = root**self.rho
        return time

    def grid(self, steps: int) -> Tensor:
        check_steps(steps)
        shares = torch.linspace(1, 0, steps, dtype=torch.float64)
        return torch.cat([self.time_at(shares), torch.zeros(1, dtype=torch.float64)])


SCHEDULES: dict[str, type[NoiseSchedule]] = {
    schedule.name: schedule
    for schedule in (CosineSchedule, FlowSchedule, LinearBetaSchedule, KarrasSchedule)
}
"""Noise schedules by name."""


def noise_schedule(spec: PartSpec) -> NoiseSchedule:
    """Noise schedule.

    Args:
        spec: ``cosine``, ``flow``, ``linear`` or ``karras``; or the options of its class with
            ``type``, such as ``{"type": "karras", "max_time": 20}``.

    Raises:
        ValueError: for an unknown name or option.
    """
    return build_part("schedule", spec, SCHEDULES)
