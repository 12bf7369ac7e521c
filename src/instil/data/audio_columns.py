"""Checks of audio in memory, and the blank among the symbols of speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED

AUDIO_TASKS = ("speech_recognition", "audio_classification", "speaker_verification")
"""Tasks whose samples have ``audio`` and ``audio_length``."""
BLANK_NAME = "<blank>"
"""Name of class 0 in speech recognition."""


def checked_audio(audio: Tensor, length: Tensor | None) -> dict[str, Tensor]:
    """Return ``audio`` in float32 and ``audio_length``.

    Args:
        audio: frames (N, T, F) or waveforms (N, T).
        length: (N,), number of valid frames; None: all frames are valid.

    Raises:
        ValueError: for another shape, an empty recording, and values that are not finite.
    """
    if audio.ndim not in (2, 3):
        raise ValueError(
            f"columns.audio: wrong shape {tuple(audio.shape)}. Expected frames (N, T, F) or "
            "waveforms (N, T)"
        )
    audio = audio.float()
    if length is None:
        length = torch.full((len(audio),), audio.shape[1])
    is_wrong = (length < 1) | ~audio.flatten(1).isfinite().all(1)
    if is_wrong.any():
        row = int(is_wrong.nonzero()[0])
        problem = "is empty" if length[row] < 1 else "has values that are not finite"
        raise ValueError(
            f"columns.audio: recording {row} {problem}. Expected finite values and at least one "
            "frame. Remove the recording"
        )
    return {"audio": audio, "audio_length": length}


def with_blank(
    sequences: Sequence[Any], classes: Sequence[str]
) -> tuple[list[Any], tuple[str, ...]]:
    """Return symbol indices and names with the blank of CTC as class 0.

    Args:
        sequences: symbol indices of each sample.
        classes: names of the symbols. If the first one is the blank already, nothing changes.
    """
    if classes and classes[0] == BLANK_NAME:
        return list(sequences), tuple(classes)
    shifted = []
    for sequence in sequences:
        shifted.append([index if index == UNLABELLED else index + 1 for index in sequence])
    return shifted, (BLANK_NAME, *classes)
