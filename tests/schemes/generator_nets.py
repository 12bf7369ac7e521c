"""Networks and batches for schemes that synthesise images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs, Scheme
from instil.engine import Engine, Optimization
from instil.training.step import train_step


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["image"])}


def classifier(width: int = 4, seed: int = 0, norm: bool = False) -> Net:
    """Return a network with logits of five classes for images (N, 1, 6, 6)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.Conv2d(1, width, 3, 2, 1),
            *([nn.BatchNorm2d(width)] if norm else []),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(9 * width, 5),
        ]
        model = nn.Sequential(*layers)
        if norm:  # what it remembers are the statistics of some images
            model.train()
            for _ in range(50):
                model(torch.rand(32, 1, 6, 6))
    return Net(model.eval(), call, {"embedding": f"{len(layers) - 1}:in"})


def blank(step: int = 0, size: int = 16) -> Batch:
    """Return a batch of zeros at one of a hundred steps; only its shape matters."""
    clock = {
        "step": torch.tensor(step),
        "progress": torch.tensor(step / 100),
        "seed": torch.tensor(0),
    }
    label = torch.full((size,), -100)
    return {
        "image": torch.zeros(size, 1, 6, 6),
        "label": label,
        "index": torch.arange(size),
        **clock,
    }


def shapes(step: int) -> Batch:
    """Return batches without step and progress, for ``check_scheme``."""
    return {key: value for key, value in blank(step).items() if value.ndim}


def trained(it: Scheme, steps: int, lr: float = 1e-2) -> list[dict[str, float]]:
    """Return the losses of some steps of Adam."""
    it.train().prepare(blank())
    engine = Engine("cpu")
    engine.setup(it, lambda learner: Optimization("adam", {"lr": lr}))
    return [
        {name: float(value) for name, value in train_step(engine, it, [blank(step)]).items()}
        for step in range(steps)
    ]


def rows(batch: Batch, some: slice) -> Batch:
    return {
        key: value[some] if isinstance(value, Tensor) and value.ndim else value
        for key, value in batch.items()
    }


class Maker(nn.Module):
    """Generator of images (N, 1, 6, 6) from codes (N, 4), without BatchNorm."""

    latent = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(self.latent, 16), nn.ReLU(), nn.Linear(16, 36), nn.Sigmoid()
        )

    def forward(self, codes: Tensor) -> Tensor:
        image: Tensor = self.layers(codes)
        return image.view(-1, 1, 6, 6)


def maker(seed: int = 3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(Maker())
