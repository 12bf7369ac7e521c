"""A small convolutional detector of one object per image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.cnn import check_norm, conv_stages

CELLS = 4
"""Side of the pooled map that the head of the box reads."""


class Detector(nn.Module):
    """Stages as in ``CNN``, a linear head for the class and one for the box.

    The class is read from the mean over space, the box from the map pooled to 4 x 4.

    Args:
        classes: number of classes.
        bins: number of bins of each edge.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
    """

    def __init__(
        self, classes: int, bins: int, channels: int, width: int, stages: int, depth: int, norm: str
    ):
        super().__init__()
        self.stages = conv_stages(channels, width, stages, depth, norm)
        last_width = width * 2 ** (stages - 1)
        self.head = nn.Linear(last_width, classes)
        self.box_head = nn.Linear(last_width * CELLS**2, 4 * bins)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute ``logits`` (N, classes) and ``box_logits`` (N, 4 * bins) of images."""
        for stage in self.stages:
            image = stage(image)
        cells = F.adaptive_avg_pool2d(image, CELLS).flatten(1)
        return {"logits": self.head(image.mean((2, 3))), "box_logits": self.box_head(cells)}


def detector(
    classes: PositiveInt,
    bins: PositiveInt | None = None,
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    stages: PositiveInt = 3,
    depth: PositiveInt = 1,
    norm: str = "batch",
) -> nn.Module:
    """Build a detector for images of any size.

    It has 93,758 parameters for 10 classes and 17 bins at the defaults.

    Args:
        classes: number of classes.
        bins: number of bins of each edge, which data with one object per image have.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.

    Raises:
        ValueError: if ``norm`` is unknown, or without ``bins``.
    """
    if bins is None:
        raise ValueError(
            "detector finds one object per image. Expected data with edges in bins, such as "
            "digit_boxes. Use a detector such as torchvision:RetinaNet for kind: boxes"
        )
    check_norm(norm)
    return Detector(classes, bins, channels, width, stages, depth, norm)
