"""The residual nets for small images of He et al. 2016, section 4.2."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.relu(self.body(image) + self.shortcut(image))


class ResNet(nn.Module):
    """A convolution, three stages of blocks at full, half and quarter resolution, the mean over space and a linear head."""

    def __init__(self, classes: int, channels: int, width: int, depth: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        inputs, stages = width, []
        for number in range(3):
            outputs = width * 2**number
            blocks = [
                ResidualBlock(inputs if n == 0 else outputs, outputs, 2 if n == 0 and number else 1)
                for n in range(depth)
            ]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, image: Tensor) -> Tensor:
        image = self.stem(image)
        for stage in self.stages:
            image = stage(image)
        logits: Tensor = self.head(image.mean((2, 3)))
        return logits


def resnet(classes: int, channels: int = 3, width: int = 16, depth: int = 3) -> nn.Module:
    """272,474 parameters for 10 classes at the defaults, which are ResNet-20; ``depth`` blocks a stage give 6 * depth + 2 layers."""
    return ResNet(classes, channels, width, depth)
