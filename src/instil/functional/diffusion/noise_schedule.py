"""Base class of noise schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class NoiseSchedule(ABC):
    """Base class of noise schedules: ``x_t = alpha(t) * x_0 + sigma(t) * noise``.

    Time 0 is the clean image, and ``max_time`` is noise. Times and coefficients have the dtype of
    the time that a method receives.

    Attributes:
        name: name in a recipe.
        min_time: smallest time of training.
        max_time: largest time.
        ends_in_noise: whether ``alpha(max_time)`` is 0.
    """

    name: str
    min_time: float = 1e-3
    max_time: float = 1.0
    ends_in_noise: bool = False

    @abstractmethod
    def alpha(self, time: Tensor) -> Tensor:
        """Factor of the clean image."""

    @abstractmethod
    def sigma(self, time: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def rates(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of ``alpha`` and ``sigma`` with respect to time."""

    @abstractmethod
    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """Time at which ``sigma / alpha`` is ``ratio``, inside the range of times."""

    def network_time(self, time: Tensor) -> Tensor:
        """Time that a network reads: about 0 to 1000."""
        return 1000 * time

    def time_at(self, share: Tensor) -> Tensor:
        """Time at a share in [0, 1] of the way from ``min_time`` to ``max_time``."""
        return self.min_time + share * (self.max_time - self.min_time)

    def middle(self, start: Tensor, end: Tensor) -> Tensor:
        """Time in the middle of a step of a sampler."""
        return (start + end) / 2

    def grid(self, steps: int) -> Tensor:
        """Times of a sampler with ``steps`` steps, float64.

        Args:
            steps: number of steps, at least 1.

        Returns:
            (steps + 1,), from ``max_time`` down to 0.

        Raises:
            ValueError: if ``steps`` is less than 1.
        """
        check_steps(steps)
        return torch.linspace(self.max_time, 0, steps + 1, dtype=torch.float64)

    def coefficients(self, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients that multiply images.

        Args:
            time: (N,) or a scalar.
            like: images (N, ...), which define the dtype and the number of dimensions.

        Returns:
            ``alpha`` and ``sigma``, each of shape (N, 1, ...) or (1, ...).
        """
        shape = (-1, *[1] * (like.ndim - 1))
        alpha = self.alpha(time).to(like.dtype).reshape(shape)
        return alpha, self.sigma(time).to(like.dtype).reshape(shape)

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Noisy images ``alpha * clean + sigma * noise`` at the times (N,)."""
        alpha, sigma = self.coefficients(time, clean)
        return alpha * clean + sigma * noise

    def velocity(self, noisy: Tensor, denoised: Tensor, time: Tensor) -> Tensor:
        """Derivative of the images along the probability flow, for the times (N,) > 0."""
        alpha, sigma = self.coefficients(time, noisy)
        shape = (-1, *[1] * (noisy.ndim - 1))
        alpha_rate, sigma_rate = (rate.to(noisy.dtype).reshape(shape) for rate in self.rates(time))
        return alpha_rate * denoised + sigma_rate * (noisy - alpha * denoised) / sigma

    def snr(self, time: Tensor) -> Tensor:
        """Signal-to-noise ratio ``(alpha / sigma) ** 2``; infinite at time 0."""
        return (self.alpha(time) / self.sigma(time)) ** 2


def check_steps(steps: int) -> None:
    """Check the number of steps of a sampler.

    Raises:
        ValueError: if it is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps: too few sampling steps. Expected at least 1, got {steps}")
