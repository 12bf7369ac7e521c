"""Noise schedules of discrete steps, given by the share of noise that each step adds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from instil.cards import suggestion
from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.diffusion.parts import require_positive

LARGEST_BETA = 0.999
"""Largest beta of ``squared_cosine``, as in Nichol and Dhariwal 2021."""


class BetaSchedule(NoiseSchedule):
    """Variance-preserving schedule of discrete times.

    Time ``(i + 1) / num_times`` is step ``i`` of the betas; times between two steps are
    interpolated in the logarithm of the signal variance.

    Args:
        betas: share of noise that each time adds (num_times,), float64.
    """

    def __init__(self, betas: Tensor) -> None:
        self.num_times = len(betas)
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


class LinearBetaSchedule(BetaSchedule):
    """Schedule with linear betas (Ho et al. 2020, section 4).

    Args:
        num_times: number of discrete times.
        first_beta: beta of the first time.
        last_beta: beta of the last time.
    """

    name = "linear"

    def __init__(
        self, num_times: int = 1000, first_beta: float = 1e-4, last_beta: float = 0.02
    ) -> None:
        super().__init__(_linear_betas(num_times, first_beta, last_beta))


class ShapedBetaSchedule(BetaSchedule):
    """Schedule of betas with a shape, one of those of diffusers.

    Args:
        shape: ``linear``; ``scaled_linear``, linear roots (Stable Diffusion); ``squared_cosine``
            (Nichol and Dhariwal 2021), which reads neither beta; or ``sigmoid``.
        num_times: number of discrete times.
        first_beta: beta of the first time.
        last_beta: beta of the last time.

    Raises:
        ValueError: for an unknown shape, or betas that are not between 0 and 1.
    """

    name = "betas"

    def __init__(
        self,
        shape: str = "scaled_linear",
        num_times: int = 1000,
        first_beta: float = 1e-4,
        last_beta: float = 0.02,
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(
                f"schedule.shape: unknown shape '{shape}'. Expected one of {', '.join(SHAPES)}."
                f"{suggestion(shape, SHAPES, is_listed=True)}"
            )
        require_positive("schedule.num_times", num_times)
        require_positive("schedule.first_beta", first_beta)
        require_positive("1 - schedule.last_beta", 1 - last_beta)
        super().__init__(SHAPES[shape](num_times, first_beta, last_beta))


def _linear_betas(num_times: int, first: float, last: float) -> Tensor:
    """Betas on a line."""
    return torch.linspace(first, last, num_times, dtype=torch.float64)


def _scaled_linear_betas(num_times: int, first: float, last: float) -> Tensor:
    """Betas whose roots are on a line."""
    return torch.linspace(first**0.5, last**0.5, num_times, dtype=torch.float64).square()


def _squared_cosine_betas(num_times: int, first: float, last: float) -> Tensor:
    """Betas whose signal variance is a squared cosine (Nichol and Dhariwal 2021, Eq. 17)."""
    share = torch.linspace(0, 1, num_times + 1, dtype=torch.float64)
    variance = ((share + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - variance[1:] / variance[:-1]).clamp_max(LARGEST_BETA)


def _sigmoid_betas(num_times: int, first: float, last: float) -> Tensor:
    """Betas on a sigmoid from -6 to 6."""
    position = torch.linspace(-6, 6, num_times, dtype=torch.float64)
    return first + position.sigmoid() * (last - first)


SHAPES: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": _linear_betas,
    "scaled_linear": _scaled_linear_betas,
    "squared_cosine": _squared_cosine_betas,
    "sigmoid": _sigmoid_betas,
}
"""Betas by the name of their shape."""
