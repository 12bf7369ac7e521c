"""Parameterisations of diffusion models: the quantity that a network predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from instil.functional.diffusion.parts import PartSpec, build_part, require_positive


class Parameterisation(ABC):
    """Base class of parameterisations; works with every schedule ``alpha``, ``sigma``.

    ``alpha`` and ``sigma`` are tensors that broadcast with the images, as those of
    ``NoiseSchedule.coefficients``. The noisy image is ``alpha * clean + sigma * noise``.

    Attributes:
        name: name in a recipe.
        needs_signal: whether the prediction is undefined where ``alpha`` is 0.
        reads_noise_level: whether the network reads ``250 * log(sigma / alpha)`` in place of the
            time of the schedule.
    """

    name: str
    needs_signal: bool = False
    reads_noise_level: bool = False

    def scale_input(self, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Input of the network."""
        return noisy

    @abstractmethod
    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Clean image that an output of the network stands for.

        Args:
            prediction: output of the network (N, ...).
            noisy: noisy images (N, ...), before ``scale_input``.
            alpha: factor of the clean image.
            sigma: standard deviation of the noise.
        """

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Output of a perfect network: the inverse of ``denoised``.

        Args:
            clean: clean images (N, ...).
            noise: standard normal noise (N, ...).
            alpha: factor of the clean image.
            sigma: standard deviation of the noise.
        """

    @abstractmethod
    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Squared error of the network output over that of the denoised image."""


class NoisePrediction(Parameterisation):
    """Prediction of the noise (Ho et al. 2020)."""

    name = "eps"
    needs_signal = True

    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (noisy - sigma * prediction) / alpha

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha / sigma) ** 2


class CleanPrediction(Parameterisation):
    """Prediction of the clean image."""

    name = "x0"

    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return prediction

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return clean

    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(alpha)


class VelocityPrediction(Parameterisation):
    """Prediction of ``v = alpha * noise - sigma * clean`` (Salimans and Ho 2022, appendix D)."""

    name = "v"

    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * noisy - sigma * prediction) / (alpha**2 + sigma**2)

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * noise - sigma * clean

    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return ((alpha**2 + sigma**2) / sigma) ** 2


class FlowPrediction(Parameterisation):
    """Prediction of ``noise - clean``, the velocity of rectified flow (Liu et al. 2023, Eq. 1).

    Time runs from the image to the noise, against the direction of the paper.
    """

    name = "flow"

    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (noisy - sigma * prediction) / (alpha + sigma)

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise - clean

    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return ((alpha + sigma) / sigma) ** 2


class EDMPrediction(Parameterisation):
    """Preconditioning of EDM (Karras et al. 2022, table 1): ``c_skip * x + c_out * F(c_in * x)``.

    ``x = noisy / alpha`` has noise of the standard deviation ``sigma / alpha``. The network reads
    1000 times ``c_noise = log(sigma / alpha) / 4``, as in the code of consistency models.

    Args:
        sigma_data: standard deviation of the clean images.
    """

    name = "edm"
    reads_noise_level = True

    def __init__(self, sigma_data: float = 0.5) -> None:
        require_positive("parameterisation.sigma_data", sigma_data)
        self.sigma_data = sigma_data

    def scale_input(self, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        # Multiplied by alpha, the coefficients are finite where alpha is 0.
        return noisy / self._norm(alpha, sigma)

    def denoised(self, prediction: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        skip, out = self.skip_and_out(alpha, sigma)
        return skip * noisy + out * prediction

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        skip, out = self.skip_and_out(alpha, sigma)
        return (clean - skip * (alpha * clean + sigma * noise)) / out

    def output_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.skip_and_out(alpha, sigma)[1] ** -2

    def skip_and_out(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the noisy image and of the network output."""
        norm = self._norm(alpha, sigma)
        return alpha * (self.sigma_data / norm) ** 2, sigma * self.sigma_data / norm

    def _norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma**2 + (alpha * self.sigma_data) ** 2).sqrt()


class ConsistencyPrediction(EDMPrediction):
    """EDM preconditioning that is the identity at the smallest noise (Song et al. 2023, Eq. 5).

    Coefficients are those of appendix C of the paper.

    Args:
        sigma_data: standard deviation of the clean images.
        min_ratio: ratio ``sigma / alpha`` at which the denoised image is the noisy one.
    """

    name = "consistency"

    def __init__(self, sigma_data: float = 0.5, min_ratio: float = 0.002) -> None:
        super().__init__(sigma_data)
        self.min_ratio = min_ratio

    def skip_and_out(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the noisy image and of the network output."""
        excess = sigma - alpha * self.min_ratio
        variance = self.sigma_data**2
        skip = alpha * variance / (excess**2 + alpha**2 * variance)
        return skip, excess * self.sigma_data / self._norm(alpha, sigma)


PARAMETERISATIONS: dict[str, type[Parameterisation]] = {
    kind.name: kind
    for kind in (
        NoisePrediction,
        CleanPrediction,
        VelocityPrediction,
        FlowPrediction,
        EDMPrediction,
        ConsistencyPrediction,
    )
}
"""Parameterisations by name."""


def parameterisation(spec: PartSpec) -> Parameterisation:
    """Parameterisation.

    Args:
        spec: ``eps``, ``x0``, ``v``, ``flow``, ``edm`` or ``consistency``; or the options of its
            class with ``type``, such as ``{"type": "edm", "sigma_data": 0.7}``.

    Raises:
        ValueError: for an unknown name or option.
    """
    return build_part("parameterisation", spec, PARAMETERISATIONS)
