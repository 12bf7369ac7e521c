"""Noise schedules of diffusion models."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.functional.diffusion.beta_schedules import LinearBetaSchedule, ShapedBetaSchedule
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
    """Straight path from image to noise (Liu et al. 2023): ``alpha = 1 - t``, ``sigma = t``.

    Args:
        shift: factor by which a sampler moves its times to the noise (Esser et al. 2024, Eq. 23).
        num_times: largest time that the network reads.

    Raises:
        ValueError: if one of them is not above 0.
    """

    name = "flow"
    ends_in_noise = True

    def __init__(self, shift: float = 1.0, num_times: int = 1000) -> None:
        require_positive("schedule.shift", shift)
        require_positive("schedule.num_times", num_times)
        self.shift = shift
        self.num_times = num_times

    def network_time(self, time: Tensor) -> Tensor:
        return self.num_times * time

    def grid(self, steps: int) -> Tensor:
        times = super().grid(steps)
        return self.shift * times / (1 + (self.shift - 1) * times)

    def alpha(self, time: Tensor) -> Tensor:
        return 1 - time

    def sigma(self, time: Tensor) -> Tensor:
        return time

    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(time), torch.ones_like(time)

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return (ratio / (1 + ratio)).clamp(self.min_time, self.max_time)


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
    for schedule in (
        CosineSchedule,
        FlowSchedule,
        LinearBetaSchedule,
        ShapedBetaSchedule,
        KarrasSchedule,
    )
}
"""Noise schedules by name."""


def noise_schedule(spec: PartSpec) -> NoiseSchedule:
    """Noise schedule.

    Args:
        spec: ``cosine``, ``flow``, ``linear``, ``betas`` or ``karras``; or the options of its class
            with ``type``, such as ``{"type": "karras", "max_time": 20}``.

    Raises:
        ValueError: for an unknown name or option.
    """
    return build_part("schedule", spec, SCHEDULES)
