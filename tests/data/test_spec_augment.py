"""Masks of time and frequency."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch
from instil.data.spec_augment import SpecAugment


def batch(num_samples: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return {
        "audio": torch.randn(num_samples, 20, 12, generator=generator),
        "audio_length": torch.full((num_samples,), 16),
        "index": torch.arange(num_samples),
        "view": torch.zeros(num_samples, dtype=torch.int64),
    }


def test_masked_frames_and_bands_have_the_mean_of_the_recording() -> None:
    before = batch()
    after = SpecAugment(time_masks=1, time_width=5, band_masks=1, band_width=3)(before)
    changed = after["audio"] != before["audio"]
    mean = before["audio"][:, :16].mean((1, 2))
    expected = mean[:, None, None].expand_as(changed)
    torch.testing.assert_close(after["audio"][changed], expected[changed])
    whole_frames = changed[:, :16].all(2).sum(1)
    whole_bands = changed[:, :16].all(1).sum(1)
    assert (whole_frames.min(), whole_frames.max()) == (0, 5)
    assert (whole_bands.min(), whole_bands.max()) == (0, 3)
    # Each changed value is in a masked frame or band, and padding is never changed.
    covered = changed[:, :16].all(2)[:, :, None] | changed[:, :16].all(1)[:, None, :]
    assert torch.equal(covered, changed[:, :16])
    assert not changed[:, 16:].any()


def test_masks_depend_on_seed_recording_and_view_only() -> None:
    before = batch()
    augment = SpecAugment(time_masks=2, time_width=4)
    whole = augment(before)["audio"]
    rows = torch.tensor([5, 3])
    part = augment({key: value[rows] for key, value in before.items()})["audio"]
    assert torch.equal(part, whole[rows])
    assert not torch.equal(augment(before | {"view": before["view"] + 1})["audio"], whole)
    assert not torch.equal(SpecAugment(time_masks=2, time_width=4, seed=1)(before)["audio"], whole)
    assert torch.equal(SpecAugment()(before)["audio"], before["audio"])


def test_a_short_recording_keeps_half_of_its_frames() -> None:
    before = batch() | {"audio_length": torch.full((64,), 3)}
    after = SpecAugment(time_masks=1, time_width=10)(before)["audio"]
    assert (after != before["audio"]).all(2).sum(1).max() == 1


def test_waveforms_have_no_bands() -> None:
    with pytest.raises(ValueError, match="augment: masks need log-mel frames"):
        SpecAugment(time_masks=1)(batch() | {"audio": torch.zeros(64, 20)})
