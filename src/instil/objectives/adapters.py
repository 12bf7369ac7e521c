"""What stands between a student's stage and a teacher's: layout, spatial size and channels."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import full


def as_map(stage: Tensor) -> Tensor:
    """A stage as a map (N, C, H, W): maps as they are, vectors (N, D) as one position, tokens (N, L, D) as a square grid.

    Tokens beyond the largest square are taken to be class or register tokens: they lead the sequence and are dropped
    (197 = 1 + 14 x 14). Raises ValueError for any other number of dimensions.
    """
    if stage.ndim == 4:
        return stage
    if stage.ndim == 2:
        return stage[:, :, None, None]
    if stage.ndim != 3:
        raise ValueError(
            f"a stage of shape {tuple(stage.shape)}; expected a map (N, C, H, W), tokens (N, L, D) or a vector (N, D)"
        )
    side = math.isqrt(stage.shape[1])
    return stage[:, stage.shape[1] - side**2 :].mT.reshape(
        stage.shape[0], stage.shape[2], side, side
    )


def resize(stage: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map (N, C, H, W) on another grid: average-pooled where neither side grows, else bilinear."""
    height, width = stage.shape[-2:]
    if (height, width) == grid:
        return stage
    if height >= grid[0] and width >= grid[1]:
        return F.adaptive_avg_pool2d(stage, grid)
    return F.interpolate(stage, grid, mode="bilinear", align_corners=False)


def smaller_grid(student: Tensor, teacher: Tensor, what: str) -> tuple[int, int]:
    """The smaller height and width of two maps.

    Raises ValueError where that is one position, for what looks at positions, each relative to the others: nothing would be left to learn.
    """
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    if height * width == 1:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(
            f"{what} needs more than one position, not {shapes}; leave that stage out of `pairs`"
        )
    return height, width


class Adapter(nn.Module):
    """A student stage, map or tokens, on the grid (H, W) and with the channels of a teacher stage: (N, C, H, W)."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        (channels, *before), (wanted, height, width) = (
            as_map(student).shape[1:],
            as_map(teacher).shape[1:],
        )
        self.grid = (height, width)
        self.project: nn.Module = nn.Identity()
        words = []
        if tuple(before) != self.grid:
            words.append(f"{before[0]}x{before[1]} -> {height}x{width}")
        if channels != wanted:
            self.project = nn.Conv2d(
                channels, wanted, 1, device=student.device, dtype=full(student).dtype
            )
            words.append("conv 1x1")
        self.words = ", ".join(words) or "as it is"

    def forward(self, student: Tensor) -> Tensor:
        stage = resize(full(as_map(student)), self.grid)
        adapted: Tensor = self.project(like(self.project, stage))
        return adapted

    def __str__(self) -> str:
        return self.words


def adapter(student: Tensor, teacher: Tensor) -> Adapter:
    """The module that takes stages like ``student`` to the shape of ``as_map(teacher)``; without parameters where the channels agree."""
    return Adapter(student, teacher)


def like(module: nn.Module, values: Tensor) -> Tensor:
    """``values`` in the precision of the module's parameters."""
    parameter = next(module.parameters(), None)
    return values if parameter is None else values.to(parameter.dtype)


def comparable(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both in full precision; a ValueError where their shapes differ, which broadcasting would hide."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what}: the student's shape {tuple(student.shape)} is not the teacher's, {tuple(teacher.shape)}"
        )
    return full(student), full(teacher)
