"""Sequences of telephone keypad tones (ITU-T Q.23) as spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.samples import TensorData
from instil.data.splits import Splits, splits

KEYS = "123456789*0#"
LOW = (697.0, 770.0, 852.0, 941.0)
HIGH = (1209.0, 1336.0, 1477.0)
RATE = 8000
"""Samples of the signal per second."""
WINDOW, HOP = 256, 128
"""Samples of a frame, and between two frames."""
NUM_FRAMES = 64
MAX_KEYS = 6


class ToneSequences(TensorData):
    """Spectrograms with the sequence of keys as label.

    The label is int64 (N, ``MAX_KEYS``), padded with -100. Class 0 is the blank of CTC.
    """

    noun = "recording"

    @property
    def kind(self) -> str:
        """``sequence``."""
        return "sequence"


def keypad_tones(
    train: Annotated[int, Doc("number of training recordings")] = 600,
    validation: Annotated[int, Doc("number of validation recordings")] = 150,
    test: Annotated[int, Doc("number of test recordings")] = 300,
    noise: Annotated[
        float, Doc("standard deviation of the white noise; a tone has 0.3 to 1")
    ] = 1.0,
) -> Splits:
    """Synthesise sequences of 2 to 6 keypad tones in noise."""
    sizes = {"train": train, "validation": validation, "test": test}
    parts = {}
    for seed, (name, size) in enumerate(sizes.items()):
        generator = torch.Generator().manual_seed(seed)
        parts[name] = _recordings(size, noise, generator)
    return splits(parts, 0.0, 0.0)


def _recordings(count: int, noise: float, generator: torch.Generator) -> ToneSequences:
    length = WINDOW + HOP * (NUM_FRAMES - 1)
    signals = noise * torch.randn(count, length, generator=generator)
    label = torch.full((count, MAX_KEYS), UNLABELLED)
    for row in range(count):
        num_keys = int(torch.randint(2, MAX_KEYS + 1, (1,), generator=generator))
        keys = torch.randint(len(KEYS), (num_keys,), generator=generator)
        label[row, :num_keys] = keys + 1
        _add_tones(signals[row], keys.tolist(), generator)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(signals, WINDOW, HOP, window=window, center=False, return_complex=True)
    # 31 to 1,593 Hz hold all tones.
    audio = spectrum.abs()[:, 1:52].log1p().transpose(1, 2)
    valid = torch.ones(count, NUM_FRAMES, dtype=torch.bool)
    facts = {"features": audio.shape[-1]}
    return ToneSequences({"audio": audio, "valid": valid}, label, ("blank", *KEYS), facts)


def _add_tones(signal: Tensor, keys: Sequence[int], generator: torch.Generator) -> None:
    """Add the tones of the keys one after another, with random lengths, pauses and loudness."""
    slot = len(signal) // MAX_KEYS
    for position, key in enumerate(keys):
        length, pause, loudness = torch.rand(3, generator=generator).tolist()
        start = position * slot + int(0.2 * pause * slot)
        end = start + int((0.4 + 0.35 * length) * slot)
        time = torch.arange(end - start) / RATE
        tone = torch.zeros(end - start)
        for frequency in (LOW[key // 3], HIGH[key % 3]):
            tone += torch.sin(2 * torch.pi * frequency * time)
        signal[start:end] += (0.3 + 0.7 * loudness) * tone
