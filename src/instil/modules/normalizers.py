"""Normalizers of teacher features by their statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.phi_standard import SMALLEST_DEVIATION, phi_s_rotation


class Normalizer(nn.Module):
    """Normalizer of a teacher's tokens by statistics of these tokens.

    The statistics are those of a dry batch until ``load_statistics`` replaces them by statistics of
    many samples. They are constant during training, so that the target does not move.
    """

    def moments(self, tokens: Tensor) -> Tensor:
        """One row that can be added up over batches: how many tokens, their sum, and the sum of their squares or products; float64."""
        raise NotImplementedError

    def load_statistics(self, moments: Tensor) -> None:
        """Take the statistics of rows of moments instead of those of the dry batch."""
        raise NotImplementedError


class StandardizeChannels(Normalizer):
    """Takes what is like the tokens that it knows to mean 0 and standard deviation 1 in each channel."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        width, like = tokens.shape[-1], to_float32(tokens)
        self.register_buffer("mean", like.new_zeros(width))
        self.register_buffer("scale", like.new_zeros(width))
        self.mean: Tensor
        self.scale: Tensor
        self.load_statistics(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (to_float32(tokens) - self.mean) * self.scale

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), rows.square().sum(0)])[None]

    def load_statistics(self, moments: Tensor) -> None:
        count, total, squares = torch.split(moments.sum(0), [1, len(self.mean), len(self.mean)])
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(SMALLEST_DEVIATION).reciprocal())


class PHIStandardize(Normalizer):
    """Takes what is like the tokens that it knows to mean 0 and, in every channel, variance 1."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        width, like = tokens.shape[-1], to_float32(tokens)
        self.register_buffer("mean", like.new_zeros(width))
        self.register_buffer("matrix", like.new_zeros(width, width))
        self.mean: Tensor
        self.matrix: Tensor
        self.load_statistics(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (to_float32(tokens) - self.mean) @ self.matrix.mT

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), (rows.mT @ rows).flatten()])[
            None
        ]

    def load_statistics(self, moments: Tensor) -> None:
        width = len(self.mean)
        count, total, products = torch.split(moments.sum(0).cpu(), [1, width, width**2])
        covariance = (products.view(width, width) - torch.outer(total, total) / count) / (
            count - 1
        ).clamp_min(1)
        self.mean.copy_(total / count)
        self.matrix.copy_(phi_s_rotation(covariance))
