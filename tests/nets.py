"""Small networks and batches, shared by the tests of loop, engine, schemes and teachers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs


class Body(nn.Module):
    """Network of a layer, dropout and a head."""

    def __init__(self, width: int = 8, classes: int = 5, dropout: float = 0.0):
        super().__init__()
        self.stem, self.drop, self.head = (
            nn.Linear(6, width),
            nn.Dropout(dropout),
            nn.Linear(width, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.stem(x).relu()))


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def net(width: int = 8, seed: int = 0, dropout: float = 0.0) -> Net:
    """Return a network with ``logits`` (N, 5) and ``embedding`` (N, width) for ``x`` (N, 6)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(Body(width, dropout=dropout), call, {"embedding": "head:in"})


def batch(count: int = 16, seed: int = 0) -> Batch:
    """Return a batch; half of its labels are missing."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 5, (count,), generator=generator)
    label[1::2] = -100
    return {
        "x": torch.randn(count, 6, generator=generator),
        "label": label,
        "index": torch.arange(count),
    }


def timed(step: int = 0, count: int = 16) -> Batch:
    """Return the batch of a step, with step and progress."""
    return batch(count, step) | {
        "step": torch.tensor(step),
        "progress": torch.tensor(step / 10),
        "seed": torch.tensor(0),
    }


def pooled_cnn(width: int = 4) -> nn.Sequential:
    """Return a network with logits (N, 3) of images (N, 1, H, W)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


def count_calls(module: nn.Module) -> Callable[[], int]:
    """Count the calls of a module from now on."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return lambda: len(calls)
