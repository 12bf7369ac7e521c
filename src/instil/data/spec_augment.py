"""SpecAugment: masks of time and frequency that depend only on seed, recording and view."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


class SpecAugment:
    """Masks of time and frequency on log-mel frames (Park et al., Interspeech 2019).

    Masked values are replaced by the mean of the recording. Teacher and student get the same
    masks, and results do not depend on how a batch is split into micro-batches.
    """

    def __init__(
        self,
        time_masks: Annotated[int, Ge(0), Doc("number of time masks")] = 0,
        time_width: Annotated[int, Ge(0), Doc("largest width of a time mask, in frames")] = 10,
        band_masks: Annotated[int, Ge(0), Doc("number of frequency masks")] = 0,
        band_width: Annotated[int, Ge(0), Doc("largest width of a frequency mask, in bands")] = 8,
        seed: int = 0,
    ):
        self.time_masks = time_masks
        self.time_width = time_width
        self.band_masks = band_masks
        self.band_width = band_width
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with masked audio.

        Args:
            batch: ``audio`` (N, T, F), ``audio_length``, ``index`` and ``view``, each (N,).

        Raises:
            ValueError: for a waveform, which has no bands.
        """
        audio: Tensor = batch["audio"]
        if audio.ndim != 3:
            raise ValueError(
                f"augment: masks need log-mel frames (N, T, F), got audio {tuple(audio.shape)}. "
                "Remove data.augment, or set data.features: log_mel"
            )
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        count = 2 * (self.time_masks + self.band_masks)
        draws = keyed_uniform(moment, max(1, count), "data.spec_augment")
        length = batch["audio_length"]
        frames = torch.arange(audio.shape[1], device=audio.device)
        bands = torch.arange(audio.shape[2], device=audio.device)
        all_bands = torch.full_like(length, audio.shape[2])
        masked = torch.zeros(audio.shape, dtype=torch.bool, device=audio.device)
        for index in range(self.time_masks):
            part = draws[:, 2 * index : 2 * index + 2]
            masked |= _spans(part, length, self.time_width, frames)[:, :, None]
        for index in range(self.time_masks, self.time_masks + self.band_masks):
            part = draws[:, 2 * index : 2 * index + 2]
            masked |= _spans(part, all_bands, self.band_width, bands)[:, None, :]
        is_valid = (frames < length[:, None])[..., None]
        total = (audio * is_valid).sum((1, 2)) / (length.clamp_min(1) * audio.shape[2])
        return batch | {"audio": torch.where(masked & is_valid, total[:, None, None], audio)}


def _spans(draws: Tensor, length: Tensor, width: int, positions: Tensor) -> Tensor:
    """Mask (N, P) of a span per recording, at most as wide as half of its length.

    Args:
        draws: uniform numbers (N, 2) for width and start.
        length: (N,), number of positions that may be masked.
        width: largest width.
        positions: (P,).
    """
    largest = length.div(2, rounding_mode="floor").clamp_max(width)
    span = (draws[:, 0] * (largest + 1)).long()
    start = (draws[:, 1] * (length - span + 1)).long()
    after_start = positions >= start[:, None]
    return after_start & (positions < (start + span)[:, None])
