"""Projection heads."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32
from instil.modules.adapters import match_dtype

WIDENING = 2
"""Width of the odd hidden layers of ``RegressionHead``, as a multiple of the input's width."""


class UnitProjector(nn.Module):
    """Two linear layers with a ReLU between them, and normalisation to unit length.

    Maps (N, inputs) to (N, width).

    Args:
        inputs: width of the input.
        width: width of the hidden layer and of the output.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(to_float32(self.layers(features)), dim=1)


class RegressionHead(nn.Module):
    """Perceptron from the student's vectors to the teacher's width, next to the teacher's vectors.

    The odd hidden layers are twice as wide as the student's vectors, and have a layer norm and a
    ReLU. The even ones have the student's width and are linear.

    Args:
        student: student vectors (N, D) of a dry batch.
        teacher: teacher vectors (N, D') of a dry batch.
        layers: number of linear layers.
    """

    def __init__(self, student: Tensor, teacher: Tensor, layers: int):
        super().__init__()
        width = student.shape[1]
        hidden = [width * (WIDENING if index % 2 == 0 else 1) for index in range(layers - 1)]
        widths = [width, *hidden, teacher.shape[1]]
        parts: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            parts.append(nn.Linear(inputs, outputs))
            if index % 2 == 0 and index < layers - 1:
                parts += [nn.LayerNorm(outputs), nn.ReLU()]
        self.student = nn.Sequential(*parts).to(student.device, to_float32(student).dtype)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(match_dtype(self.student, student)), teacher
