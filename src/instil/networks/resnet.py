"""The residual networks for small images of He et al. 2016, section 4.2."""

from __future__ import annotations

from torch import Tensor, nn

from instil.cards import PositiveInt


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, a 1 x 1 convolution if the shape changes.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, image: Tensor) -> Tensor:
        """Compute the output map (N, outputs, h, w) of an input map."""
        return nn.functional.relu(self.body(image) + self.shortcut(image))


class ResNet(nn.Module):
    """A convolution, three stages of blocks, a mean over space and a linear head.

    The stages have full, half and quarter resolution.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first stage.
        depth: blocks per stage.
    """

    def __init__(self, classes: int, channels: int, width: int, depth: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList()
        inputs = width
        for level in range(3):
            outputs = width * 2**level
            blocks: list[nn.Module] = []
            for i in range(depth):
                stride = 2 if i == 0 and level else 1
                blocks.append(ResidualBlock(outputs if i else inputs, outputs, stride))
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.head = nn.Linear(inputs, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, C, H, W)."""
        image = self.stem(image)
        for stage in self.stages:
            image = stage(image)
        logits: Tensor = self.head(image.mean((2, 3)))
        return logits


def resnet(
    classes: PositiveInt, channels: PositiveInt = 3, width: PositiveInt = 16, depth: PositiveInt = 3
) -> nn.Module:
    """Build a residual network of 6 * depth + 2 layers.

    The defaults give ResNet-20, with 272,474 parameters for 10 classes.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first stage.
        depth: blocks per stage.
    """
    return ResNet(classes, channels, width, depth)
