"""Small student with difficult parts for an export.

It has taps, normalisation in its call, BatchNorm and dropout.
"""

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def normalised(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model((batch["image"] - 0.3) / 0.2)}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net(Small(), normalised, {"features": ["body.2", "body.3"], "embedding": "head:in"})
    for _ in range(5):
        net({"image": torch.rand(32, 1, 8, 8)})  # BatchNorm's running values leave their start
    return net


@pytest.fixture
def batch() -> Batch:
    return {
        "image": torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
        "label": torch.arange(32) % 5,
    }
