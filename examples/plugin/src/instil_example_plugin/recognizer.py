"""Convolutional recogniser."""

from __future__ import annotations

from torch import Tensor, nn


class Recognizer(nn.Module):
    """Convolutions over time; audio (N, T, F) gives logits (N, T, C)."""

    def __init__(self, features: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(depth):
            layers += [
                nn.Conv1d(width if index else features, width, 5, padding=2),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(audio.transpose(1, 2)).transpose(1, 2))
        return logits


def recognizer(classes: int, features: int, width: int = 64, depth: int = 3) -> nn.Module:
    """Build a recogniser.

    Args:
        classes: number of classes, the blank included.
        features: number of frequencies of a frame.
        width: channels of a layer.
        depth: number of layers.
    """
    return Recognizer(features, classes, width, depth)
