"""A small convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from instil.cards import Fraction, PositiveInt


class CNN(nn.Module):
    """Stages of 3 x 3 convolutions, a mean over space, dropout and a linear head.

    Each stage after the first has half the resolution and twice the width.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
        dropout: share of the pooled features that is dropped in training.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        width: int,
        stages: int,
        depth: int,
        norm: str,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.stages = conv_stages(channels, width, stages, depth, norm)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * 2 ** (stages - 1), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, C, H, W)."""
        for stage in self.stages:
            image = stage(image)
        logits: Tensor = self.head(self.dropout(image.mean((2, 3))))
        return logits


def conv_stages(channels: int, width: int, stages: int, depth: int, norm: str) -> nn.ModuleList:
    """Build stages, each after the first with half the resolution and twice the width.

    Args:
        channels: number of input channels.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
    """
    widths = [width * 2**level for level in range(stages)]
    inputs = [channels, *widths[:-1]]
    return nn.ModuleList(
        conv_stage(num_inputs, num_outputs, depth, norm, halve=level > 0)
        for level, (num_inputs, num_outputs) in enumerate(zip(inputs, widths, strict=True))
    )


def conv_stage(inputs: int, outputs: int, depth: int, norm: str, halve: bool) -> nn.Sequential:
    """Build a stage of 3 x 3 convolutions, each with normalisation and ReLU.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        depth: number of convolutions.
        norm: ``batch`` or ``none``.
        halve: whether max pooling halves the resolution first.
    """
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if halve else []
    for i in range(depth):
        # A bias before BatchNorm would have no effect.
        bias = norm == "none"
        layers.append(nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1, bias=bias))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def check_norm(norm: str) -> None:
    """Check the name of a normalisation.

    Raises:
        ValueError: for another name than ``batch`` or ``none``.
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")


def cnn(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    width: PositiveInt = 32,
    stages: PositiveInt = 3,
    depth: PositiveInt = 1,
    norm: str = "batch",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Build a CNN for images of any size: 94,186 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
        dropout: share of the pooled features that is dropped in training.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_norm(norm)
    return CNN(classes, channels, width, stages, depth, norm, dropout)
