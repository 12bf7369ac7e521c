"""A convolutional supernet whose sub-networks share its first channels and layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import PositiveInt


class SlimmableLayer(nn.Module):
    """3 x 3 convolution, normalisation over all channels and positions, and ReLU.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        # Normalisation per sample: statistics of BatchNorm would differ between sub-networks.
        self.norm = nn.GroupNorm(1, outputs)

    def forward(self, image: Tensor, outputs: int | None = None) -> Tensor:
        """Compute the first output channels.

        Args:
            image: (N, C, H, W), with any number C of the first input channels.
            outputs: number of output channels; None for all.
        """
        weight = self.convolution.weight[:outputs, : image.shape[1]]
        scale = self.norm.weight[:outputs]
        shift = self.norm.bias[:outputs]
        return F.group_norm(F.conv2d(image, weight, padding=1), 1, scale, shift).relu()


class SlimmableStage(nn.ModuleList):
    """Layers of one stage; a sub-network runs the first ``depth`` of them."""

    def forward(self, image: Tensor, outputs: int, depth: int) -> Tensor:
        """Compute the output of the first layers.

        Args:
            image: (N, C, H, W).
            outputs: number of output channels of each layer.
            depth: number of layers.
        """
        for layer in self[:depth]:
            image = layer(image, outputs)
        return image


class SlimmableHead(nn.Linear):
    """Linear layer that accepts any number of its first features."""

    def forward(self, features: Tensor) -> Tensor:
        """Compute outputs for features (N, D) with the first D columns of the weight."""
        return F.linear(features, self.weight[:, : features.shape[1]], self.bias)


class SlimmableCNN(nn.Module):
    """Stages of convolutions, each after the first at half the resolution and twice the width.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        widths: width of each stage.
        depth: convolutions per stage.
    """

    def __init__(self, classes: int, channels: int, widths: list[int], depth: int):
        super().__init__()
        self.classes = classes
        self.channels = channels
        self.widths = list(widths)
        self.depth = depth
        self.stages = nn.ModuleList()
        for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True):
            layers = [SlimmableLayer(outputs if i else inputs, outputs) for i in range(depth)]
            self.stages.append(SlimmableStage(layers))
        self.head = SlimmableHead(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, C, H, W)."""
        return self.forward_subnet(image, share=1.0, depth=self.depth)

    def forward_subnet(self, image: Tensor, share: float, depth: int) -> Tensor:
        """Compute logits of the sub-network with the first channels and layers of each stage.

        Args:
            image: (N, C, H, W).
            share: share of the channels of each stage, in (0, 1].
            depth: convolutions per stage, from 1 to the depth of the network.

        Returns:
            Logits (N, classes).
        """
        widths = self._subnet_widths(share)
        for i, (stage, width) in enumerate(zip(self.stages, widths, strict=True)):
            image = F.max_pool2d(image, 2, ceil_mode=True) if i else image
            image = stage(image, width, depth)
        logits: Tensor = self.head(image.mean((2, 3)))
        return logits

    @torch.no_grad()
    def subnet(self, share: float, depth: int) -> SlimmableCNN:
        """Return a sub-network as a network of its own, with copies of the weights.

        Args:
            share: share of the channels of each stage, in (0, 1].
            depth: convolutions per stage, from 1 to the depth of the network.
        """
        smaller = SlimmableCNN(self.classes, self.channels, self._subnet_widths(share), depth)
        weights = self.state_dict()
        for name, value in smaller.state_dict().items():
            value.copy_(weights[name][tuple(slice(size) for size in value.shape)])
        return smaller.to(self.head.weight).train(self.training)

    def _subnet_widths(self, share: float) -> list[int]:
        return [max(1, round(share * width)) for width in self.widths]


def slimmable_cnn(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    stages: PositiveInt = 3,
    depth: PositiveInt = 2,
) -> nn.Module:
    """Build a supernet for images of any size: 72,666 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
    """
    return SlimmableCNN(classes, channels, [width * 2**i for i in range(stages)], depth)
