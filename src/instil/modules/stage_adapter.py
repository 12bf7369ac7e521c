"""Adapter from a stage of one network to a stage of another."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import to_float32


class StageAdapter(nn.Module):
    """Adapter from a stage of one network to the shape of another network's stage.

    A convolution and a resize for maps (N, C, H, W); a linear layer for tokens (N, L, C) and
    vectors (N, C).

    Args:
        source: example of the input stage.
        target: example of the output stage.
        kernel: size of the convolution's kernel.

    Raises:
        ValueError: if only one of the stages is a map, or the numbers of tokens differ.
    """

    def __init__(self, source: Tensor, target: Tensor, kernel: int = 1):
        super().__init__()
        self.grid = (target.shape[2], target.shape[3]) if target.ndim == 4 else None
        differs = self.grid is None and source.shape[1:-1] != target.shape[1:-1]
        if source.ndim != target.ndim or differs:
            raise ValueError(
                "scheme.stage_pairs: no adapter fits the shapes of two stages. Expected two maps "
                "(N, C, H, W), or tokens or vectors of the same length, got "
                f"{tuple(source.shape)} and {tuple(target.shape)}. Leave this pair out"
            )
        axis = -1 if self.grid is None else 1
        widths = source.shape[axis], target.shape[axis]
        project: nn.Module
        if self.grid is None:
            project = nn.Linear(*widths)
        else:
            project = nn.Conv2d(*widths, kernel, padding=kernel // 2)
        self.project = project.to(source.device, to_float32(source).dtype)

    def forward(self, stage: Tensor) -> Tensor:
        projected: Tensor = self.project(stage)
        if self.grid is None or tuple(projected.shape[2:]) == self.grid:
            return projected
        shrinks = projected.shape[2] >= self.grid[0] and projected.shape[3] >= self.grid[1]
        if shrinks:
            return F.adaptive_avg_pool2d(projected, self.grid)
        return F.interpolate(projected, self.grid, mode="bilinear")
