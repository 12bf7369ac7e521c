"""Features rotated so that all channels have the same variance, and scaled to 1 (PHI-S)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import full
from instil.objectives.hadamard import equalizing_rotation
from instil.objectives.patch_matching import SMALLEST_DEVIATION, Statistics


def phi_s_rotation(covariance: Tensor) -> Tensor:
    """The matrix W (D, D) of ``phi_s_matrix`` by the covariance (D, D), in float64 on the CPU."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    deviation = values.mean().sqrt().clamp_min(SMALLEST_DEVIATION)
    rotation: Tensor = equalizing_rotation(values) @ vectors.T / deviation
    return rotation


class Standard(Statistics):
    """Takes what is like the tokens that it knows to mean 0 and, in every channel, variance 1."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        width, like = tokens.shape[-1], full(tokens)
        self.register_buffer("mean", like.new_zeros(width))
        self.register_buffer("matrix", like.new_zeros(width, width))
        self.mean: Tensor
        self.matrix: Tensor
        self.settle(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (full(tokens) - self.mean) @ self.matrix.mT

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), (rows.mT @ rows).flatten()])[
            None
        ]

    def settle(self, moments: Tensor) -> None:
        width = len(self.mean)
        count, total, products = torch.split(moments.sum(0).cpu(), [1, width, width**2])
        covariance = (products.view(width, width) - torch.outer(total, total) / count) / (
            count - 1
        ).clamp_min(1)
        self.mean.copy_(total / count)
        self.matrix.copy_(phi_s_rotation(covariance))
