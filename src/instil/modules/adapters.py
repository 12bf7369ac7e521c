"""Adapters between student and teacher features: spatial size and channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.feature_maps import as_map, resize


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
                channels, wanted, 1, device=student.device, dtype=to_float32(student).dtype
            )
            words.append("conv 1x1")
        self.words = ", ".join(words) or "as it is"

    def forward(self, student: Tensor) -> Tensor:
        stage = resize(to_float32(as_map(student)), self.grid)
        adapted: Tensor = self.project(match_dtype(self.project, stage))
        return adapted

    def __str__(self) -> str:
        return self.words


def match_dtype(module: nn.Module, values: Tensor) -> Tensor:
    """``values`` in the precision of the module's parameters."""
    parameter = next(module.parameters(), None)
    return values if parameter is None else values.to(parameter.dtype)


class LinearAdapter(nn.Linear):
    """From the student's width to the teacher's, in the precision of its weight."""

    def forward(self, student: Tensor) -> Tensor:
        return super().forward(match_dtype(self, to_float32(student)))


class IdentityPair(nn.Module):
    """Both sides' vectors as they are."""

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return student, teacher


class NormalizedProjections(nn.Module):
    """A learned linear head a side, to one width and unit length: vectors (N, dim)."""

    def __init__(self, student: Tensor, teacher: Tensor, dim: int):
        super().__init__()
        self.student = nn.Linear(student.shape[1], dim, device=student.device, dtype=student.dtype)
        self.teacher = nn.Linear(teacher.shape[1], dim, device=student.device, dtype=student.dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = (
            self.student(student.to(self.student.weight.dtype)),
            self.teacher(teacher.to(self.teacher.weight.dtype)),
        )
        return F.normalize(mine, dim=1), F.normalize(theirs, dim=1)


class StudentProjection(nn.Module):
    """A learned linear map of the student's vectors to the teacher's width, nothing where the widths agree; the teacher's as they are."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        widths = student.shape[1], teacher.shape[1]
        self.student: nn.Module = nn.Identity()
        if widths[0] != widths[1]:
            self.student = nn.Linear(*widths, device=student.device, dtype=student.dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(match_dtype(self.student, student)), teacher
