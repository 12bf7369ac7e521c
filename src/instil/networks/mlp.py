"""A multilayer perceptron on pixels or vectors."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt


class MLP(nn.Module):
    """``stages`` of one linear layer with ReLU each, and a linear head.

    Args:
        classes: number of classes.
        inputs: number of inputs.
        width: width of the hidden layers.
        depth: number of hidden layers.
    """

    def __init__(self, classes: int, inputs: int, width: int, depth: int):
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.stages = nn.Sequential(
            *(nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in pairwise(sizes))
        )
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, C, H, W) or vectors (N, D)."""
        logits: Tensor = self.head(self.stages(image.flatten(1)))
        return logits


def mlp(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = 8,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 1,
    features: PositiveInt | None = None,
) -> nn.Module:
    """Build an MLP: 2,410 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        size: side, or height and width, of the image.
        width: width of the hidden layers.
        depth: number of hidden layers.
        features: length of vectors; None for images.
    """
    height, breadth = (size, size) if isinstance(size, int) else size
    inputs = channels * height * breadth if features is None else features
    return MLP(classes, inputs, width, depth)
