"""Base class of tasks with audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.spec_augment import SpecAugment
from instil.tasks.bases.task import Task


class AudioTask(Task):
    """Base class of tasks with ``audio`` (N, T, F) or (N, T) and ``audio_length`` (N,).

    Attributes:
        augmentation: SpecAugment, whose options are keys of ``data.augment``.
    """

    names = ("audio", "audio_length", "label")
    inputs = ("audio", "audio_length")
    aliases: ClassVar = {"input_values": "audio", "input_features": "audio", "labels": "label"}
    augmentation: ClassVar[Any] = SpecAugment
    eval_batch_size = 32

    def adapt_batch(self, batch: Batch) -> Batch:
        """Return a batch of a user's loader; without ``audio_length`` no frame is padding."""
        return _with_length(super().adapt_batch(batch))

    def check_data(self, batch: Batch) -> None:
        """Check the inputs and their shapes.

        Raises:
            ValueError: for a missing input, audio of another shape, and an empty recording.
        """
        super().check_data(batch)
        audio = batch["audio"]
        if audio.ndim not in (2, 3) or not audio.is_floating_point():
            raise ValueError(
                "audio: wrong form. Expected floating-point frames (N, T, F) or waveforms (N, T), "
                f"got {audio.dtype} of shape {tuple(audio.shape)}"
            )
        length = batch["audio_length"]
        if bool((length < 1).any()) or bool((length > audio.shape[1]).any()):
            raise ValueError(
                f"audio_length: a recording has {int(length.min())} to {int(length.max())} frames. "
                f"Expected 1 to {audio.shape[1]}"
            )

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return a batch for an exported student, padded to the length in training.

        Args:
            inputs: ``audio`` and ``audio_length``, or the audio only, without padding.
            shape: shape of the audio of one recording in training.

        Raises:
            ValueError: for recordings that are longer than those in training.
        """
        batch = dict(inputs) if isinstance(inputs, Mapping) else {"audio": inputs}
        batch = super().to_batch(_with_length(batch), shape)
        missing = shape[0] - batch["audio"].shape[1]
        if missing < 0:
            raise ValueError(
                f"audio: {batch['audio'].shape[1]} frames are too long. Expected at most "
                f"{shape[0]}, as in training. Cut the recording at a pause"
            )
        padding = (0, 0) * (batch["audio"].ndim - 2) + (0, missing)
        return batch | {"audio": torch.nn.functional.pad(batch["audio"], padding)}


def _with_length(batch: Batch) -> Batch:
    audio = batch.get("audio")
    if "audio_length" in batch or not isinstance(audio, Tensor):
        return batch
    return batch | {"audio_length": torch.full((len(audio),), audio.shape[1], device=audio.device)}
