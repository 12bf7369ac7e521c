"""A multilayer perceptron on the pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU (``stages``) and a linear head."""

    def __init__(self, classes: int, inputs: int, width: int, depth: int):
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.stages = nn.Sequential(
            *(nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in pairwise(sizes))
        )
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(image.flatten(1)))
        return logits


def mlp(
    classes: int,
    channels: int = 1,
    size: int | tuple[int, int] = 8,
    width: int = 32,
    depth: int = 1,
    features: int | None = None,
) -> nn.Module:
    """2,410 parameters for 10 classes at the defaults; for images of ``size`` (one number, or H and W) or vectors of ``features`` numbers.

    ``depth``: hidden layers.
    """
    height, breadth = (size, size) if isinstance(size, int) else size
    return MLP(classes, channels * height * breadth if features is None else features, width, depth)
