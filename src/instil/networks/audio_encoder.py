"""Encoder of log-mel frames: normalisation, convolutions and recurrent layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalize = Literal["bands", "loudness"]
"""Values of a recording that are standardised together: each band, or all of its frames."""


class AudioEncoder(nn.Module):
    """Convolutions over time, then recurrent layers in both directions.

    Padded frames are 0 after every layer, so that the states of a recording do not depend on the
    length of its batch.

    Args:
        features: number of values of a frame.
        width: width of the states.
        depth: number of convolutions.
        kernel: number of frames that a convolution reads, odd.
        stride: distance of two output frames, in input frames.
        gru: number of recurrent layers.
        dropout: share of the values that is dropped in training.
        normalize: ``bands`` standardises each band over its recording, which removes the mean
            spectrum of voice and microphone; ``loudness`` standardises all bands together.

    Raises:
        ValueError: for an even kernel, an odd width with recurrent layers, and another
            normalisation.
    """

    def __init__(
        self,
        features: int,
        width: int,
        depth: int,
        kernel: int,
        stride: int,
        gru: int,
        dropout: float,
        normalize: Normalize = "bands",
    ):
        super().__init__()
        if normalize not in ("bands", "loudness"):
            raise ValueError(f"normalize: expected bands or loudness, got {normalize}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number of frames, got {kernel}")
        if gru and width % 2:
            raise ValueError(f"width: expected an even number with recurrent layers, got {width}")
        self.stride = stride
        self.normalize = normalize
        self.input = MaskedConv(features, width, kernel, stride, dropout)
        self.blocks = nn.ModuleList(
            MaskedConv(width, width, kernel, 1, dropout) for _ in range(depth - 1)
        )
        self.recurrent = nn.ModuleList(BothDirections(width) for _ in range(gru))
        self.norm = nn.LayerNorm(width)

    def forward(self, audio: Tensor, audio_length: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Compute the states of all layers.

        Args:
            audio: (N, T, F).
            audio_length: (N,), number of valid frames.

        Returns:
            States (N, T / stride, width) of each layer, the last one normalised, and the number of
            valid output frames (N,).
        """
        states = normalize_frames(audio, audio_length, self.normalize)
        length = self.output_lengths(audio_length)
        states = self.input(states, length)
        layers = [states]
        for block in self.blocks:
            states = states + block(states, length)
            layers.append(states)
        for layer in self.recurrent:
            states = states + layer(states, length)
            layers.append(states)
        layers.append(self.norm(states) * frame_mask(states, length))
        return tuple(layers), length

    def output_lengths(self, length: Tensor) -> Tensor:
        """Return the numbers of output frames of recordings of some lengths."""
        return (length + self.stride - 1).div(self.stride, rounding_mode="floor")


class MaskedConv(nn.Module):
    """Convolution over time with LayerNorm, ReLU and dropout; padded frames of the output are 0.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        kernel: number of frames, odd.
        stride: distance of two output frames.
        dropout: share of the values that is dropped in training.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dropout: float):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, length: Tensor) -> Tensor:
        """Compute (N, T / stride, outputs) of states (N, T, inputs) whose padding is 0."""
        result = self.norm(self.conv(states.transpose(1, 2)).transpose(1, 2)).relu()
        masked: Tensor = self.dropout(result) * frame_mask(result, length)
        return masked


class BothDirections(nn.Module):
    """Recurrent layer (GRU) in both directions, each with half of the width.

    The second direction reads every recording from its own last frame, not from the padding.

    Args:
        width: width of input and output.
    """

    def __init__(self, width: int):
        super().__init__()
        self.forwards = nn.GRU(width, width // 2, batch_first=True)
        self.backwards = nn.GRU(width, width // 2, batch_first=True)

    def forward(self, states: Tensor, length: Tensor) -> Tensor:
        """Compute (N, T, width) of states (N, T, width)."""
        first, _ = self.forwards(states)
        second, _ = self.backwards(reverse_frames(states, length))
        joined = torch.cat([first, reverse_frames(second, length)], -1)
        masked: Tensor = joined * frame_mask(joined, length)
        return masked


def frame_mask(states: Tensor, length: Tensor) -> Tensor:
    """Return (N, T, 1) in the type of ``states`` (N, T, D): 1 for valid frames, 0 for padding."""
    frames = torch.arange(states.shape[1], device=states.device)
    return (frames < length[:, None]).to(states.dtype)[..., None]


def reverse_frames(states: Tensor, length: Tensor) -> Tensor:
    """Reverse the valid frames of every recording; padding stays where it is.

    Args:
        states: (N, T, D).
        length: (N,), number of valid frames.

    Example:
        >>> reverse_frames(torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([2])).flatten()
        tensor([2., 1., 0.])
    """
    frames = torch.arange(states.shape[1], device=states.device)
    reverse = length[:, None] - 1 - frames
    source = torch.where(reverse >= 0, reverse, frames)
    return states.gather(1, source[..., None].expand_as(states))


def normalize_frames(audio: Tensor, audio_length: Tensor, normalize: Normalize = "bands") -> Tensor:
    """Standardise the valid frames of every recording; padding becomes 0.

    Args:
        audio: (N, T, F).
        audio_length: (N,), number of valid frames.
        normalize: ``bands`` for a mean and a deviation of each band, ``loudness`` for one of each
            recording.

    Returns:
        (N, T, F), in float32 or better.

    Example:
        >>> audio = torch.tensor([[[1.0, 5.0], [3.0, 7.0], [9.0, 9.0]]])
        >>> normalize_frames(audio, torch.tensor([2]))[0].abs()
        tensor([[1., 1.],
                [1., 1.],
                [0., 0.]])
        >>> normalize_frames(audio, torch.tensor([2]), "loudness")[0, :2].round(decimals=2)
        tensor([[-1.3400,  0.4500],
                [-0.4500,  1.3400]])
    """
    audio = audio.float() if audio.dtype in (torch.float16, torch.bfloat16) else audio
    mask = frame_mask(audio, audio_length)
    count = audio_length.clamp_min(1)[:, None, None]
    axes: tuple[int, ...] = (1,)
    if normalize == "loudness":
        axes = (1, 2)
        count = count * audio.shape[2]
    # Values of padding may be anything, so they are replaced before the sums.
    audio = torch.where(mask > 0, audio, 0.0)
    mean = audio.sum(axes, keepdim=True) / count
    centred = (audio - mean) * mask
    variance = centred.square().sum(axes, keepdim=True) / count
    return centred / variance.clamp_min(1e-10).sqrt()
