"""Adapters between student and teacher features: spatial size and channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.feature_maps import (
    as_map,
    describe_grid,
    grid_of,
    resize,
    resize_to_common,
)


class PointwiseConv(nn.Conv2d):
    """1x1 convolution of maps (N, C, *grid) with a grid of any number of dimensions.

    Args:
        source: channels of the input.
        target: channels of the result.
        bias: whether there is a bias.
        device: device of the parameters.
        dtype: type of the parameters.
    """

    def __init__(
        self,
        source: int,
        target: int,
        bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(source, target, 1, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim <= 4:
            return super().forward(input)
        result = super().forward(input.flatten(2).unsqueeze(3))
        return result.view(len(input), -1, *input.shape[2:])


class Adapter(nn.Module):
    """Adapter of a student feature map to the grid and the channels of a teacher feature map.

    A 1x1 convolution maps the channels; it has no parameters where they agree. The result is
    (N, C, *grid).

    Args:
        student: student features of a dry batch: map, tokens or vectors.
        teacher: teacher features of a dry batch: map, tokens or vectors.
    """

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        student_map, teacher_map = as_map(student), as_map(teacher)
        student_channels, teacher_channels = student_map.shape[1], teacher_map.shape[1]
        student_grid = grid_of(student_map)
        self.grid = grid_of(teacher_map)
        self.project: nn.Module = nn.Identity()
        steps = []
        if student_grid != self.grid:
            steps.append(f"{describe_grid(student_grid)} -> {describe_grid(self.grid)}")
        if student_channels != teacher_channels:
            dtype = to_float32(student).dtype
            self.project = PointwiseConv(
                student_channels, teacher_channels, device=student.device, dtype=dtype
            )
            steps.append("conv 1x1")
        self.description = ", ".join(steps) or "as it is"

    def forward(self, student: Tensor) -> Tensor:
        resized = resize(to_float32(as_map(student)), self.grid)
        adapted: Tensor = self.project(match_dtype(self.project, resized))
        return adapted

    def __str__(self) -> str:
        return self.description


def match_dtype(module: nn.Module, values: Tensor) -> Tensor:
    """Values in the dtype of a module's parameters."""
    parameter = next(module.parameters(), None)
    return values if parameter is None else values.to(parameter.dtype)


class LinearAdapter(nn.Linear):
    """Linear map from the student's width to the teacher's, in the dtype of its weight."""

    def forward(self, student: Tensor) -> Tensor:
        return super().forward(match_dtype(self, to_float32(student)))


def linear_adapter(student: Tensor, teacher: Tensor) -> nn.Module:
    """Linear map from vectors (..., D) to the width of the teacher's; identity if widths agree."""
    widths = student.shape[-1], teacher.shape[-1]
    if widths[0] == widths[1]:
        return nn.Identity()
    return LinearAdapter(*widths, device=student.device, dtype=to_float32(student).dtype)


class IdentityPair(nn.Module):
    """Identity of a pair of tensors."""

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return student, teacher


class NormalizedProjections(nn.Module):
    """One linear head per side, to unit vectors (N, dim) of a common width.

    Args:
        student: student vectors (N, D) of a dry batch.
        teacher: teacher vectors (N, D') of a dry batch.
        dim: width of the result.
    """

    def __init__(self, student: Tensor, teacher: Tensor, dim: int):
        super().__init__()
        device, dtype = student.device, student.dtype
        self.student = nn.Linear(student.shape[1], dim, device=device, dtype=dtype)
        self.teacher = nn.Linear(teacher.shape[1], dim, device=device, dtype=dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student = self.student(match_dtype(self.student, student))
        teacher = self.teacher(match_dtype(self.teacher, teacher))
        return F.normalize(student, dim=1), F.normalize(teacher, dim=1)


class StudentProjection(nn.Module):
    """Linear map of the student's vectors to the teacher's width, next to the teacher's vectors.

    Args:
        student: student vectors (N, D) of a dry batch.
        teacher: teacher vectors (N, D') of a dry batch.
    """

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        self.student = linear_adapter(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(student), teacher


def common_grid(student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
    """Adapter and description of two levels that a loss compares on the smaller of their grids."""
    resized, _ = resize_to_common(student, teacher)
    return nn.Identity(), f"on {describe_grid(grid_of(resized))}"
