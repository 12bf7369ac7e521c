"""A small network for keywords, languages and speakers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.networks.audio_encoder import AudioEncoder, Normalize, frame_mask


class AudioClassifier(nn.Module):
    """Audio encoder, mean and standard deviation over time, an embedding and a linear head.

    Args:
        encoder: encoder of the frames.
        width: width of its states.
        embedding: width of the embedding.
        classes: number of classes.
    """

    def __init__(self, encoder: AudioEncoder, width: int, embedding: int, classes: int):
        super().__init__()
        self.encoder = encoder
        self.embed = nn.Linear(2 * width, embedding)
        self.head = nn.Linear(embedding, classes)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Any]:
        """Compute the outputs for log-mel frames.

        Args:
            audio: (N, T, F).
            audio_length: (N,), number of valid frames.

        Returns:
            ``logits`` (N, classes), ``embedding`` (N, embedding), ``frame_length`` (N,) and
            ``hidden_states``, the states of each layer.
        """
        states, length = self.encoder(audio, audio_length)
        embedding = self.embed(mean_and_deviation(states[-1], length))
        return {
            "logits": self.head(embedding.relu()),
            "embedding": embedding,
            "frame_length": length,
            "hidden_states": states,
        }


def mean_and_deviation(states: Tensor, length: Tensor) -> Tensor:
    """Mean and standard deviation over the valid frames of each recording.

    Args:
        states: (N, T, D).
        length: (N,), number of valid frames.

    Returns:
        (N, 2 D).

    Example:
        >>> states = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> mean_and_deviation(states, torch.tensor([2]))
        tensor([[2., 1.]])
    """
    mask = frame_mask(states, length)
    count = length.clamp_min(1)[:, None]
    mean = (states * mask).sum(1) / count
    variance = ((states - mean[:, None]) * mask).square().sum(1) / count
    return torch.cat([mean, variance.clamp_min(1e-10).sqrt()], 1)


def audio_classifier(
    classes: PositiveInt,
    features: PositiveInt,
    width: PositiveInt = 64,
    depth: PositiveInt = 3,
    kernel: PositiveInt = 5,
    stride: PositiveInt = 2,
    gru: NonNegativeInt = 0,
    embedding: PositiveInt = 64,
    dropout: Fraction = 0.1,
    normalize: Normalize = "bands",
) -> nn.Module:
    """Build a classifier of recordings: 64,020 parameters for 40 bands and 20 classes.

    Args:
        classes: number of classes.
        features: number of values of a frame.
        width: width of the states.
        depth: number of convolutions over time.
        kernel: number of frames that a convolution reads, odd.
        stride: distance of two output frames of the encoder, in input frames.
        gru: number of recurrent layers in both directions.
        embedding: width of the embedding.
        dropout: share of the values that is dropped in training.
        normalize: ``bands`` standardises each band over its recording, which removes the mean
            spectrum of voice and microphone: for keywords. ``loudness`` standardises all bands
            together: for languages and speakers, whose mean spectrum differs.

    Raises:
        ValueError: for an even kernel, an odd width with recurrent layers, and another
            normalisation.
    """
    encoder = AudioEncoder(features, width, depth, kernel, stride, gru, dropout, normalize)
    return AudioClassifier(encoder, width, embedding, classes)
