"""Log-mel front end of audio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Smallest energy of a band, before the logarithm."""


def log_mel(
    waveform: Tensor,
    rate: int,
    bands: int = 40,
    window: float = 0.025,
    hop: float = 0.010,
    low: float = 20.0,
    high: float | None = None,
) -> Tensor:
    """Natural logarithm of the energies of mel bands.

    Frames begin at 0, ``hop``, 2 ``hop``, ... seconds and are multiplied by a symmetric Hann
    window. The last frame is padded with zeros, so that every sample is in a frame. The result
    depends on neither the device nor a random state.

    Args:
        waveform: samples (T,) or (N, T), in [-1, 1].
        rate: samples per second.
        bands: number of mel bands.
        window: length of a frame, in seconds.
        hop: distance of two frames, in seconds.
        low: lower edge of the first band, in Hz.
        high: upper edge of the last band, in Hz; None: half of ``rate``.

    Returns:
        (frames, bands) or (N, frames, bands).

    Raises:
        ValueError: for an empty waveform, and edges outside of 0 to half of ``rate``.

    Example:
        >>> wave = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)
        >>> frames = log_mel(wave, 8000, bands=10)
        >>> frames.shape, frames[10].argmax()
        (torch.Size([99, 10]), tensor(2))
    """
    if not waveform.shape[-1]:
        raise ValueError("waveform: it is empty. Expected at least one sample")
    size = max(2, round(window * rate))
    step = max(1, round(hop * rate))
    fft_size = 2 ** math.ceil(math.log2(size))
    count = 1 + max(0, math.ceil((waveform.shape[-1] - size) / step))
    missing = (count - 1) * step + size - waveform.shape[-1]
    padded = torch.nn.functional.pad(waveform, (0, missing))
    hann = torch.hann_window(size, periodic=False, dtype=waveform.dtype, device=waveform.device)
    frames = padded.unfold(-1, size, step) * hann
    power = torch.fft.rfft(frames, fft_size).abs().square()
    filters = mel_filters(rate, fft_size, bands, low, high).to(power)
    energies: Tensor = power @ filters.T + FLOOR
    return energies.log()


def mel_filters(
    rate: int, fft_size: int, bands: int, low: float = 20.0, high: float | None = None
) -> Tensor:
    """Triangular filters that are equally spaced on the mel scale 2595 log10(1 + f / 700).

    A band that is narrower than the distance of two frequencies has the frequency nearest to its
    centre. The weights of a band add up to 1.

    Args:
        rate: samples per second.
        fft_size: length of the Fourier transform.
        bands: number of bands.
        low: lower edge of the first band, in Hz.
        high: upper edge of the last band, in Hz; None: half of ``rate``.

    Returns:
        (bands, fft_size / 2 + 1).

    Raises:
        ValueError: for edges outside of 0 to half of ``rate``.

    Example:
        >>> mel_filters(8000, 8, 2).round(decimals=2)
        tensor([[0.0000, 1.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.1800, 0.5500, 0.2700, 0.0000]])
    """
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"low, high: expected 0 <= low < high <= {rate / 2:g} Hz for a rate of {rate}, got "
            f"{low:g} and {high:g}"
        )
    ends = torch.tensor([low, high], dtype=torch.float64)
    mel = 2595 * torch.log10(1 + ends / 700)
    points = torch.linspace(float(mel[0]), float(mel[1]), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (points / 2595) - 1)
    frequencies = torch.arange(fft_size // 2 + 1, dtype=torch.float64) * rate / fft_size
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_min(0)
    nearest = (edges[1:-1] * fft_size / rate).round().long()
    is_empty = filters.sum(1) == 0
    filters[is_empty, nearest[is_empty]] = 1
    return (filters / filters.sum(1, keepdim=True)).float()
