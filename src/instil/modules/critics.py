"""Default critics, and spectral normalisation of their weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from instil.modules.adapters import PointwiseConv
from instil.modules.connectors import convolution

FIRST_ITERATIONS = 20
"""Power iterations that bring a random vector near the first left singular vector."""


def default_critic(values: Tensor) -> nn.Module:
    """Build a critic of two layers with 64 channels.

    Args:
        values: example of its input: vectors or tokens (..., D), or maps (N, C, *grid).

    Returns:
        Linear layers for vectors and tokens, convolutions for maps; one score per position.
    """
    if values.ndim >= 4:
        wide = convolution(values.ndim - 2, values.shape[1], 64, 3)
        return nn.Sequential(wide, nn.LeakyReLU(0.2), PointwiseConv(64, 1))
    return nn.Sequential(nn.Linear(values.shape[-1], 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))


class SpectralNorm(nn.Module):
    """Weight divided by its largest singular value (Miyato et al. 2018, Algorithm 1).

    The buffer ``direction`` is the left singular vector, from one power iteration per step. The
    forward pass does not change it; ``follow`` does.

    Args:
        weight: the weight before the normalisation.
    """

    direction: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        direction = torch.randn(len(weight), device=weight.device, dtype=weight.dtype)
        self.register_buffer("direction", F.normalize(direction, dim=0))
        for _ in range(FIRST_ITERATIONS):
            self.follow(weight)

    def forward(self, weight: Tensor) -> Tensor:
        left, right = self._vectors(weight)
        return weight / torch.dot(left, weight.flatten(1) @ right)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """Update the direction by one power iteration."""
        self.direction.copy_(self._vectors(weight)[0])

    @torch.no_grad()
    def _vectors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        matrix = weight.flatten(1)
        right = F.normalize(matrix.T @ self.direction, dim=0)
        return F.normalize(matrix @ right, dim=0), right


def apply_spectral_norm(critic: nn.Module) -> None:
    """Apply ``SpectralNorm`` to every linear layer and convolution of a critic, in place."""
    for module in list(critic.modules()):
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))


def spectral_norms(critic: nn.Module) -> Iterator[tuple[SpectralNorm, Tensor]]:
    """Spectral norms of a critic, each with its original weight."""
    for module in critic.modules():
        if isinstance(module, parametrize.ParametrizationList):
            norm = module[0]
            if isinstance(norm, SpectralNorm):
                yield norm, module.original
