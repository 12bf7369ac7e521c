"""A small convolutional net in three stages."""

from __future__ import annotations

from torch import Tensor, nn


class CNN(nn.Module):
    """Stages of 3 x 3 convolutions, each after the first at half the resolution and twice the width; mean over space, dropout, a linear head."""

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
        widths = [width * 2**stage for stage in range(stages)]
        inputs = [channels, *widths[:-1]]
        self.stages = nn.ModuleList(
            conv_stage(i, o, depth, norm, halve=n > 0)
            for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        for part in self.stages:
            image = part(image)
        logits: Tensor = self.head(self.dropout(image.mean((2, 3))))
        return logits


def conv_stage(inputs: int, outputs: int, depth: int, norm: str, halve: bool) -> nn.Sequential:
    """``depth`` convolutions with their normalisation and ReLU, after a pooling by two where ``halve``."""
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if halve else []
    for number in range(depth):
        layers.append(
            nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1, bias=norm == "none")
        )
        layers += [nn.BatchNorm2d(outputs)] if norm == "batch" else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def cnn(
    classes: int,
    channels: int = 1,
    width: int = 32,
    stages: int = 3,
    depth: int = 1,
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """94,186 parameters for 10 classes at the defaults; images of any size, (N, C, H, W).

    ``norm``: ``batch`` or ``none``. ``dropout``: the share of the last features that is dropped in training.
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")
    return CNN(classes, channels, width, stages, depth, norm, dropout)
