"""Small image networks, shared by the tests of schemes with attacks."""

from __future__ import annotations

import torch
from torch import nn

from instil.core import Batch, Net
from tests import nets


def images(seed: int = 0, size: int = 16) -> Batch:
    """Return a batch; half of the labels are missing."""
    inputs = nets.batch(size, seed)
    return {
        "image": torch.rand(size, 1, 5, 5, generator=torch.Generator().manual_seed(seed)),
        **{key: inputs[key] for key in ("label", "index")},
    }


def timed(seed: int = 0, progress: float = 0.5, size: int = 16) -> Batch:
    return images(seed, size) | {
        "step": torch.tensor(seed),
        "progress": torch.tensor(progress),
        "seed": torch.tensor(0),
    }


def net(width: int, seed: int = 0, norm: bool = False, classes: int = 5) -> Net:
    """Smooth network whose outputs depend on every pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(1, width, 3),
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(9 * width, classes),
        )
        return Net(nn.Sequential(*layers), taps={"features": ["2"]})
