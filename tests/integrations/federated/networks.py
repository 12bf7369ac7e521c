"""Small networks and data for the tests of federated distillation."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from instil import Optimization, Training

NUM_CLASSES = 3
SHAPE = (1, 4, 4)
STEP = Training(
    steps=1, optimizer=Optimization("sgd", {"lr": 0.5}), schedule="constant", device="cpu"
)


def network(seed: int, hidden: int = 0) -> nn.Sequential:
    """Linear classifier, or one with a hidden layer."""
    torch.manual_seed(seed)
    size = SHAPE[1] * SHAPE[2]
    if not hidden:
        return nn.Sequential(nn.Flatten(), nn.Linear(size, NUM_CLASSES))
    layers = [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, NUM_CLASSES)]
    return nn.Sequential(nn.Flatten(), *layers)


def images(seed: int, count: int = 6) -> Tensor:
    """Random images."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


class TinyGenerator(nn.Module):
    """Linear generator with two numbers of noise."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.latent = 2 + NUM_CLASSES
        self.layer = nn.Linear(self.latent, SHAPE[1] * SHAPE[2])

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.layer(code).view(-1, *SHAPE)
        return image


def sgd_step(model: nn.Module, loss: Any, lr: float = 0.5) -> nn.Module:
    """Copy of a model after one step of plain SGD on ``loss(model)``."""
    model = copy.deepcopy(model)
    gradients = torch.autograd.grad(loss(model), list(model.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= lr * gradient
    return model


def vector(model: nn.Module) -> Tensor:
    """All weights of a model."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()
