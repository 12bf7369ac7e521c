"""A small convolutional image encoder in the place of that of a SAM."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc


class Encoded(NamedTuple):
    """Output of an image encoder, with the names of transformers."""

    last_hidden_state: Tensor
    hidden_states: None = None
    attentions: None = None


class ConvEncoder(nn.Module):
    """Stages of 3 x 3 convolutions, each with half the resolution, and a map of a given grid.

    Args:
        channels: number of channels of the image.
        widths: width of each stage.
        depth: convolutions per stage.
        target: number of channels of the map.
        grid: height and width of the map.
        image_size: height and width of the images.
    """

    def __init__(
        self,
        channels: int,
        widths: list[int],
        depth: int,
        target: int,
        grid: int,
        image_size: int,
    ):
        super().__init__()
        self.image_size = image_size
        self.grid = grid
        layers: list[nn.Module] = []
        for width in widths:
            for index in range(depth):
                stride = 1 if index else 2
                layers.append(nn.Conv2d(channels, width, 3, stride, 1, bias=False))
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.stages = nn.Sequential(*layers)
        self.neck = nn.Sequential(
            nn.Conv2d(channels, target, 1), nn.Conv2d(target, target, 3, 1, 1)
        )

    def forward(self, pixel_values: Tensor, **options: Any) -> Encoded:
        """Compute the map (N, target, grid, grid) of images (N, channels, H, W)."""
        features = self.stages(pixel_values)
        if features.shape[-1] != self.grid:
            shape = (self.grid, self.grid)
            features = F.interpolate(features, shape, mode="bilinear", align_corners=False)
        return Encoded(self.neck(features))


def image_encoder(
    model: nn.Module,
    width: Annotated[int, Ge(1), Doc("width of the first stage; each further one has twice it")],
    stages: Annotated[int, Ge(1), Doc("number of stages, each with half the resolution")] = 2,
    depth: Annotated[int, Ge(1), Doc("convolutions per stage")] = 2,
    size: Annotated[
        int | None, Doc("height and width of the student's images; null: those of the teacher")
    ] = None,
) -> nn.Module:
    """Replace the image encoder of a SAM, in place, by a small convolutional one.

    The new encoder has random weights, and the width and the grid of the old one. Prompt encoder
    and mask decoder keep their weights.

    Raises:
        ValueError: for a model without a ``vision_encoder`` and its configuration.
    """
    network: Any = model
    config = getattr(getattr(model, "config", None), "vision_config", None)
    if not hasattr(model, "vision_encoder") or config is None:
        raise ValueError(
            f"{type(model).__name__} has no vision_encoder. Expected SAM of transformers, such as "
            "transformers:AutoModelForMaskGeneration"
        )
    network.vision_encoder = ConvEncoder(
        config.num_channels,
        [width * 2**index for index in range(stages)],
        depth,
        config.output_channels,
        config.image_size // config.patch_size,
        size or config.image_size,
    )
    return model
