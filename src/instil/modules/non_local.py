"""Non-local block of feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.functional.pooling import pool_cells
from instil.modules.adapters import PointwiseConv
from instil.modules.connectors import NORMS


class NonLocal(nn.Module):
    """Non-local block: adds to each position a sum over all positions; at first the identity.

    Args:
        channels: channels of the feature map.
        norm: normalisation of the added map.
        stride: size of the cells that are max-pooled before the sum.
    """

    def __init__(self, channels: int, norm: str, stride: int = 1):
        super().__init__()
        middle = max(1, channels // 2)
        self.stride = stride
        self.value = PointwiseConv(channels, middle)
        self.query = PointwiseConv(channels, middle)
        self.key = PointwiseConv(channels, middle)
        self.out = PointwiseConv(middle, channels, bias=False)
        self.norm = NORMS[norm](channels)
        for parameter in self.norm.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        value = pool_cells(self.value(features), self.stride, "max", ceil_mode=False).flatten(2)
        key = pool_cells(self.key(features), self.stride, "max", ceil_mode=False).flatten(2)
        # Value times key first: the matrix of all pairs of positions is never stored.
        summary = value @ key.mT / key.shape[2]
        related = (summary @ self.query(features).flatten(2)).view(
            len(features), -1, *features.shape[2:]
        )
        result: Tensor = features + self.norm(self.out(related))
        return result
