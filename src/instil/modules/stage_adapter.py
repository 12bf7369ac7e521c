"""Adapter from a stage of one network to a stage of another."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.feature_maps import grid_of, resize
from instil.modules.connectors import convolution


class StageAdapter(nn.Module):
    """Adapter from a stage of one network to the shape of another network's stage.

    A convolution and a resize for maps (N, C, *grid); a linear layer for tokens (N, L, C) and
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
        self.grid = grid_of(target) if target.ndim >= 4 else None
        differs = self.grid is None and source.shape[1:-1] != target.shape[1:-1]
        if source.ndim != target.ndim or differs:
            raise ValueError(
                "scheme.stage_pairs: no adapter fits the shapes of two stages. Expected two maps "
                "(N, C, *grid), or tokens or vectors of the same length, got "
                f"{tuple(source.shape)} and {tuple(target.shape)}. Leave this pair out"
            )
        axis = -1 if self.grid is None else 1
        widths = source.shape[axis], target.shape[axis]
        project: nn.Module
        if self.grid is None:
            project = nn.Linear(*widths)
        else:
            project = convolution(len(self.grid), *widths, kernel)
        self.project = project.to(source.device, to_float32(source).dtype)

    def forward(self, stage: Tensor) -> Tensor:
        projected: Tensor = self.project(stage)
        return projected if self.grid is None else resize(projected, self.grid)
