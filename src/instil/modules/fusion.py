"""Fusion of image vectors and point vectors of 2DPASS (Yan et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.modules.adapters import match_dtype


class Fusion(nn.Module):
    """Gated fusion of an image vector and a point vector, and a classifier of the result.

    Args:
        student: width of the point vectors.
        teacher: width of the image vectors.
        classes: number of classes.
        width: width of the hidden layer of the learner.
        device: device of the parameters.
    """

    def __init__(self, student: int, teacher: int, classes: int, width: int, device: torch.device):
        super().__init__()
        self.learner = nn.Sequential(
            nn.Linear(student, width), nn.ReLU(), nn.Linear(width, teacher)
        )
        self.fuse = nn.Linear(2 * teacher, teacher)
        self.gate = nn.Linear(teacher, teacher)
        self.head = nn.Linear(teacher, classes)
        self.to(device)

    def enhanced(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute fused vectors (N, teacher) of vectors (N, D) of student and teacher."""
        learned = self.learner(match_dtype(self.learner, student))
        fused = self.fuse(torch.cat([teacher.to(learned.dtype), learned], 1))
        enhanced: Tensor = teacher + self.gate(fused).sigmoid() * fused
        return enhanced

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute logits (N, classes) of vectors (N, D) of student and teacher."""
        logits: Tensor = self.head(self.enhanced(student, teacher))
        return logits


class LevelFusion(nn.Module):
    """Fusion at one level, and a classifier of the student's vector of this level.

    Args:
        student: width of the point vectors.
        teacher: width of the image vectors.
        classes: number of classes.
        width: width of the hidden layers.
        device: device of the parameters.
    """

    def __init__(self, student: int, teacher: int, classes: int, width: int, device: torch.device):
        super().__init__()
        self.fusion = Fusion(student, teacher, classes, width, device)
        self.head = nn.Sequential(
            nn.Linear(student, width), nn.ReLU(), nn.Linear(width, classes)
        ).to(device)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Compute fused logits and logits of the points, both (N, classes)."""
        return self.fusion(student, teacher), self.head(match_dtype(self.head, student))
