"""Training with teacher statistics on each rank; started by ``test_statistics.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from instil import DINOv2, Training, distil
from instil.core import Net
from instil.engine import Optimization, init_distributed, rank

NUM_ROWS = 7
NUM_BATCHES = 4


def convolutional(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )
    return Net(layers, taps={"features": ["1"], "embedding": "4:in"})


def batches(rows: slice) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(NUM_BATCHES, NUM_ROWS, 1, 6, 6, generator=generator)
    return [(image[rows], torch.zeros(len(image[rows]), dtype=torch.int64)) for image in images]


def trained(rows: slice = slice(None)) -> dict[str, Tensor]:
    """Weights after two steps; 15 samples are those of three batches of seven rows."""
    student = convolutional(2, seed=1)
    objectives = {"dinov2": DINOv2(prototypes=4, calibration_samples=15)}
    training = Training(steps=2, optimizer=Optimization("sgd", {"lr": 0.1}), device="cpu")
    teacher = convolutional(4, seed=0)
    distil(teacher, student, batches(rows), objectives, training=training, progress=False)
    return student.state_dict()


if __name__ == "__main__":
    init_distributed("cpu")
    weights = trained(slice(0, 4) if rank() == 0 else slice(4, None))
    if rank() == 0:
        torch.save(weights, Path(sys.argv[1]))
