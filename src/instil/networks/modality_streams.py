"""One convolutional stream for each modality, with a common classifier."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.networks.cnn import conv_stages


class Stream(nn.Module):
    """Stages of convolutions and the mean over space: images (N, C, H, W) to vectors.

    Args:
        channels: number of channels of the modality.
        width: width of the first stage.
        stages: number of stages.
    """

    def __init__(self, channels: int, width: int, stages: int):
        super().__init__()
        self.stages = conv_stages(channels, width, stages, 1, "batch")

    def forward(self, image: Tensor) -> Tensor:
        """Return vectors (N, D)."""
        for stage in self.stages:
            image = stage(image)
        return image.mean((2, 3))


class ModalityStreams(nn.Module):
    """Streams of modalities that are groups of channels of one image, and a linear head.

    Args:
        classes: number of classes.
        groups: number of channels of each modality, in the order of the channels.
        hallucinated: number of further streams, which read the first modality.
        width: width of the first stage of a stream.
        stages: number of stages of a stream.
        drop: probability with which a modality of a sample is replaced by zeros in training.
    """

    def __init__(
        self,
        classes: int,
        groups: list[int],
        hallucinated: int,
        width: int,
        stages: int,
        drop: float,
    ):
        super().__init__()
        self.groups = groups
        self.drop = drop
        sizes = groups + groups[:1] * hallucinated
        self.streams = nn.ModuleList(Stream(size, width, stages) for size in sizes)
        self.head = nn.Linear(len(sizes) * width * 2 ** (stages - 1), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, sum of the groups, H, W)."""
        ends = list(accumulate(self.groups))
        parts = [image[:, end - size : end] for end, size in zip(ends, self.groups, strict=True)]
        if self.training and self.drop:
            parts = self._dropped(parts)
        parts += parts[:1] * (len(self.streams) - len(parts))
        vectors = [stream(part) for stream, part in zip(self.streams, parts, strict=True)]
        logits: Tensor = self.head(torch.cat(vectors, 1))
        return logits

    def _dropped(self, parts: list[Tensor]) -> list[Tensor]:
        """Modalities with zeros for dropped ones; each sample keeps at least one."""
        draws = torch.rand(len(parts[0]), len(parts), device=parts[0].device)
        # The modality with the largest draw stays, so that no sample is empty.
        is_present = (draws >= self.drop) | (draws == draws.amax(1, keepdim=True))
        return [
            part * present[:, None, None, None]
            for part, present in zip(parts, is_present.unbind(1), strict=True)
        ]


def modality_streams(
    classes: PositiveInt,
    channels: PositiveInt = 2,
    groups: list[PositiveInt] | None = None,
    hallucinated: NonNegativeInt = 0,
    width: PositiveInt = 16,
    stages: PositiveInt = 2,
    drop: Fraction = 0.0,
) -> nn.Module:
    """Build a network of aligned modalities: 10,346 parameters for 10 classes at the defaults.

    Zeros stand for a missing modality.

    Args:
        classes: number of classes.
        channels: number of channels of all modalities.
        groups: number of channels of each modality, in the order of the channels. None: one each.
        hallucinated: number of further streams, which read the first modality and take the place of
            modalities that the network does not read.
        width: width of the first stage of a stream; each further one has twice the width.
        stages: number of stages of a stream.
        drop: probability with which a modality of a sample is replaced by zeros in training; each
            sample keeps at least one.

    Raises:
        ValueError: for groups that do not add up to the channels, and a probability out of range.
    """
    groups = [1] * channels if groups is None else groups
    if sum(groups) != channels or min(groups) < 1:
        raise ValueError(
            f"groups: wrong number of channels. Expected numbers that add up to the {channels} "
            f"channels of the data, got {groups}"
        )
    if not 0 <= drop < 1:
        raise ValueError(f"drop: {drop:g} is out of range. Expected 0 <= drop < 1")
    return ModalityStreams(classes, groups, hallucinated, width, stages, drop)
