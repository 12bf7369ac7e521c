"""Normalizers of teacher features by their statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.phi_standard import SMALLEST_DEVIATION, phi_s_rotation


class Normalizer(nn.Module):
    """Base class of normalizers of a teacher's tokens by statistics of these tokens.

    The statistics are those of a dry batch until ``load_statistics`` replaces them by statistics of
    many samples. They are constant during training, so that the target does not move.
    """

    def moments(self, tokens: Tensor) -> Tensor:
        """Moments of tokens (..., D) that can be added over batches.

        Returns:
            (1, M) in float64: number of tokens, their sum, and the sum of their squares or
            products.
        """
        raise NotImplementedError

    def load_statistics(self, moments: Tensor) -> None:
        """Replace the statistics by those of moments (batches, M)."""
        raise NotImplementedError


class StandardizeChannels(Normalizer):
    """Standardization to mean 0 and standard deviation 1 in each channel.

    Args:
        tokens: tokens (..., D) of a dry batch.
    """

    def __init__(self, tokens: Tensor):
        super().__init__()
        width = tokens.shape[-1]
        template = to_float32(tokens)
        self.register_buffer("mean", template.new_zeros(width))
        self.register_buffer("scale", template.new_zeros(width))
        self.mean: Tensor
        self.scale: Tensor
        self.load_statistics(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (to_float32(tokens) - self.mean) * self.scale

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), rows.square().sum(0)])[None]

    def load_statistics(self, moments: Tensor) -> None:
        width = len(self.mean)
        count, total, squares = torch.split(moments.sum(0), [1, width, width])
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(SMALLEST_DEVIATION).reciprocal())


class PHIStandardize(Normalizer):
    """PHI standardization: mean 0, then a rotation and scale that give every channel variance 1.

    Args:
        tokens: tokens (..., D) of a dry batch.
    """

    def __init__(self, tokens: Tensor):
        super().__init__()
        width = tokens.shape[-1]
        template = to_float32(tokens)
        self.register_buffer("mean", template.new_zeros(width))
        self.register_buffer("matrix", template.new_zeros(width, width))
        self.mean: Tensor
        self.matrix: Tensor
        self.load_statistics(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (to_float32(tokens) - self.mean) @ self.matrix.mT

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        products = (rows.mT @ rows).flatten()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), products])[None]

    def load_statistics(self, moments: Tensor) -> None:
        width = len(self.mean)
        # The eigenvectors are computed on the CPU, so that every device gets the same rotation.
        count, total, products = torch.split(moments.sum(0).cpu(), [1, width, width**2])
        centred = products.view(width, width) - torch.outer(total, total) / count
        covariance = centred / (count - 1).clamp_min(1)
        self.mean.copy_(total / count)
        self.matrix.copy_(phi_s_rotation(covariance))
