"""A small convolutional net that says which object an image has, and where."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.networks.cnn import conv_stage

CELLS = 4  # the box is read off a map of so many places each way


class Detector(nn.Module):
    """Stages as those of ``cnn``; a linear head of their mean over space for the class, and one of the map, brought to 4 x 4, for the box."""

    def __init__(
        self, classes: int, bins: int, channels: int, width: int, stages: int, depth: int, norm: str
    ):
        super().__init__()
        widths = [width * 2**number for number in range(stages)]
        inputs = [channels, *widths[:-1]]
        self.stages = nn.ModuleList(
            conv_stage(i, o, depth, norm, halve=n > 0)
            for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.head = nn.Linear(widths[-1], classes)
        self.box_head = nn.Linear(widths[-1] * CELLS**2, 4 * bins)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        for part in self.stages:
            image = part(image)
        cells = F.adaptive_avg_pool2d(image, CELLS).flatten(1)
        return {"logits": self.head(image.mean((2, 3))), "box_logits": self.box_head(cells)}


def detector(
    classes: int,
    bins: int,
    channels: int = 1,
    width: int = 16,
    stages: int = 3,
    depth: int = 1,
    norm: str = "batch",
) -> nn.Module:
    """93,758 parameters for 10 classes and 17 bins at the defaults; images of any size to ``logits`` and ``box_logits`` (N, 4 * bins).

    ``norm``: ``batch`` or ``none``.
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")
    return Detector(classes, bins, channels, width, stages, depth, norm)
