"""Log-mel frames against the definition with sums of sines and cosines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.functional.log_mel import FLOOR, log_mel, mel_filters


def by_definition(wave: np.ndarray, rate: int, bands: int, size: int, step: int) -> np.ndarray:
    """Frames, Hann window, discrete Fourier transform and triangles, one value at a time."""
    fft_size = 1
    while fft_size < size:
        fft_size *= 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))

    def to_mel(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    mels = np.linspace(to_mel(20), to_mel(rate / 2), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    rows = []
    start = 0
    while True:
        frame = np.zeros(fft_size)
        part = wave[start : start + size]
        frame[: len(part)] = part * window[: len(part)]
        power = []
        for index in range(fft_size // 2 + 1):
            angle = 2 * np.pi * index * np.arange(fft_size) / fft_size
            power.append((frame @ np.cos(angle)) ** 2 + (frame @ np.sin(angle)) ** 2)
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            weights = []
            for index in range(fft_size // 2 + 1):
                hertz = index * rate / fft_size
                rise, fall = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
                weights.append(max(0.0, min(rise, fall)))
            row.append(np.log(np.dot(weights, power) / sum(weights) + FLOOR))
        rows.append(row)
        start += step
        if start + size - step >= len(wave):
            return np.array(rows)


def test_frames_follow_the_definition() -> None:
    generator = np.random.default_rng(0)
    time = np.arange(500) / 8000
    wave = np.sin(2 * np.pi * 700 * time) + 0.1 * generator.standard_normal(500)
    expected = by_definition(wave, 8000, 6, 200, 80)
    actual = log_mel(torch.from_numpy(wave), 8000, bands=6)
    assert actual.shape == expected.shape == (5, 6)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4)


def test_a_batch_has_the_frames_of_its_rows_and_every_sample_counts() -> None:
    waves = torch.randn(2, 401, generator=torch.Generator().manual_seed(0))
    both = log_mel(waves, 16000)
    torch.testing.assert_close(both[1], log_mel(waves[1], 16000))
    # 401 samples are one frame of 400 and one more sample.
    assert both.shape == (2, 2, 40)
    changed = waves.clone()
    changed[:, -1] += 1
    assert not torch.equal(log_mel(changed, 16000), both)


def test_one_sample_is_one_frame_and_none_is_refused() -> None:
    assert log_mel(torch.ones(1), 16000).shape == (1, 40)
    with pytest.raises(ValueError, match="waveform: it is empty"):
        log_mel(torch.ones(0), 16000)
    with pytest.raises(ValueError, match="0 <= low < high <= 4000"):
        mel_filters(8000, 256, 10, high=5000)


def test_narrow_bands_are_not_empty() -> None:
    filters = mel_filters(8000, 64, 40)
    torch.testing.assert_close(filters.sum(1), torch.ones(40))
