"""Adapter from a stage of one network to a stage of another."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import to_float32


class StageAdapter(nn.Module):
    """A stage of one net as a stage of the other: a convolution to its channels, on its grid; of tokens and vectors a linear map.

    Raises ValueError where one is a map and the other is not, or their numbers of tokens differ.
    """

    def __init__(self, source: Tensor, target: Tensor, kernel: int = 1):
        super().__init__()
        self.grid = (target.shape[2], target.shape[3]) if target.ndim == 4 else None
        if source.ndim != target.ndim or (
            self.grid is None and source.shape[1:-1] != target.shape[1:-1]
        ):
            raise ValueError(
                f"scheme.stage_pairs: stages {tuple(source.shape)} and {tuple(target.shape)} cannot take each other's place; leave them out"
            )
        axis = -1 if self.grid is None else 1
        widths = source.shape[axis], target.shape[axis]
        project = (
            nn.Linear(*widths)
            if self.grid is None
            else nn.Conv2d(*widths, kernel, padding=kernel // 2)
        )
        self.project = project.to(source.device, to_float32(source).dtype)

    def forward(self, stage: Tensor) -> Tensor:
        made: Tensor = self.project(stage)
        if self.grid is None or tuple(made.shape[2:]) == self.grid:
            return made
        shrinks = made.shape[2] >= self.grid[0] and made.shape[3] >= self.grid[1]
        return (
            F.adaptive_avg_pool2d(made, self.grid)
            if shrinks
            else F.interpolate(made, self.grid, mode="bilinear")
        )
