"""What a critic is made of: its default nets, its losses and what keeps it from growing too steep."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 20  # bring a random direction near the first singular one


def default_critic(values: Tensor) -> nn.Module:
    """Two layers of 64: of vectors and tokens (..., D) linear ones, of maps (N, C, H, W) convolutions; one score each place."""
    if values.ndim == 4:
        return nn.Sequential(
            nn.Conv2d(values.shape[1], 64, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 1)
        )
    return nn.Sequential(nn.Linear(values.shape[-1], 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))


class SpectralNorm(nn.Module):
    """A weight over its largest singular value, of which ``direction`` is the left vector, found by one power iteration a step (Miyato et al. 2018,
    Algorithm 1). The forward pass moves nothing: ``follow`` does."""

    direction: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer(
            "direction",
            F.normalize(torch.randn(len(weight), device=weight.device, dtype=weight.dtype), dim=0),
        )
        for _ in range(FIRST_ITERATIONS):
            self.follow(weight)

    def forward(self, weight: Tensor) -> Tensor:
        left, right = self._vectors(weight)
        return weight / torch.dot(left, weight.flatten(1) @ right)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """Move the direction by one iteration."""
        self.direction.copy_(self._vectors(weight)[0])

    @torch.no_grad()
    def _vectors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        matrix = weight.flatten(1)
        right = F.normalize(matrix.T @ self.direction, dim=0)
        return F.normalize(matrix @ right, dim=0), right


def apply_spectral_norm(critic: nn.Module) -> None:
    """Every linear layer and convolution of a critic has largest singular value 1 from now on."""
    for part in list(critic.modules()):
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            parametrize.register_parametrization(part, "weight", SpectralNorm(part.weight))


def spectral_norms(critic: nn.Module) -> Iterator[tuple[SpectralNorm, Tensor]]:
    """The normalisations in a critic, each with the weight that it is of."""
    for part in critic.modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(part[0], SpectralNorm):
            yield part[0], part.original
