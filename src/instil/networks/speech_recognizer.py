"""A small network for speech recognition with connectionist temporal classification."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.networks.audio_encoder import AudioEncoder


class SpeechRecognizer(nn.Module):
    """Audio encoder with one linear layer for the symbols, the blank included.

    Args:
        encoder: encoder of the frames.
        width: width of its states.
        classes: number of classes, the blank included.
    """

    def __init__(self, encoder: AudioEncoder, width: int, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Any]:
        """Compute the outputs for log-mel frames.

        Args:
            audio: (N, T, F).
            audio_length: (N,), number of valid frames.

        Returns:
            ``logits`` (N, T / stride, classes), ``frame_length`` (N,) and ``hidden_states``, the
            states of each layer.
        """
        states, length = self.encoder(audio, audio_length)
        return {"logits": self.head(states[-1]), "frame_length": length, "hidden_states": states}

    def _get_feat_extract_output_lengths(self, length: Tensor) -> Tensor:
        # The name in models of transformers.
        return self.encoder.output_lengths(length)


def speech_recognizer(
    classes: PositiveInt,
    features: PositiveInt,
    width: PositiveInt = 96,
    depth: PositiveInt = 4,
    kernel: PositiveInt = 5,
    stride: PositiveInt = 2,
    gru: NonNegativeInt = 1,
    dropout: Fraction = 0.1,
) -> nn.Module:
    """Build a recogniser: 203,936 parameters for 40 bands and 32 classes at the defaults.

    Args:
        classes: number of classes, the blank included.
        features: number of values of a frame.
        width: width of the states.
        depth: number of convolutions over time.
        kernel: number of frames that a convolution reads, odd.
        stride: distance of two output frames, in input frames. A text needs one output frame per
            symbol, and one more between two equal symbols.
        gru: number of recurrent layers in both directions.
        dropout: share of the values that is dropped in training.

    Raises:
        ValueError: for an even kernel, or an odd width with recurrent layers.
    """
    encoder = AudioEncoder(features, width, depth, kernel, stride, gru, dropout)
    return SpeechRecognizer(encoder, width, classes)
