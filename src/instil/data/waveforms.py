"""Audio files as waveforms of one rate."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Extensions of audio files in a folder."""


def read_waveform(path: Path, rate: int, convert: bool = False) -> NDArray[np.float32]:
    """Read an audio file as one channel of a rate.

    WAV files need no further package; other formats need the package soundfile.

    Args:
        path: the file.
        rate: expected samples per second.
        convert: whether files of another rate are resampled and several channels are averaged.

    Returns:
        Samples (T,) in [-1, 1].

    Raises:
        ValueError: for a file that cannot be read or is empty, another rate, and several channels
            without ``convert``.
    """
    samples, file_rate = _read(path)
    if not len(samples):
        raise ValueError(f"{path} is empty. Expected at least one sample. Remove the file")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} has values that are not finite. Expected samples in [-1, 1]")
    if samples.ndim == 2 and samples.shape[1] > 1 and not convert:
        raise ValueError(
            f"{path} has {samples.shape[1]} channels. Expected one. Set convert: true to average "
            "them"
        )
    if file_rate != rate and not convert:
        raise ValueError(
            f"{path} has {file_rate} samples per second. Expected {rate}. Set rate: {file_rate}, "
            "or convert: true to resample"
        )
    mono = samples.mean(1) if samples.ndim == 2 else samples
    if file_rate != rate:
        from scipy.signal import resample_poly  # type: ignore[import-untyped]

        common = gcd(file_rate, rate)
        mono = resample_poly(mono, rate // common, file_rate // common)
    waveform: NDArray[np.float32] = np.ascontiguousarray(mono, dtype=np.float32)
    return waveform


def audio_files(folder: Path) -> list[Path]:
    """Return the audio files in a folder and its subfolders, by their extension, sorted."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    # Hidden files, such as ._1.wav of macOS, are no recordings.
    return sorted(path for path in paths if not path.name.startswith("."))


def _read(path: Path) -> tuple[NDArray[Any], int]:
    """Samples (T,) or (T, channels) in [-1, 1], and the rate."""
    if path.suffix.lower() == ".wav":
        try:
            return _read_wav(path)
        except ValueError as error:
            if "soundfile" not in _installed():
                raise ValueError(f"{path} cannot be read as a WAV file: {error}") from error
    try:
        import soundfile  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ValueError(
            f"{path}: files other than WAV need the package soundfile. Install it with pip install "
            '"instil[audio]"'
        ) from error
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=False)
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as an audio file: {error}") from error
    return samples, int(rate)


def _installed() -> set[str]:
    from importlib.util import find_spec

    return {"soundfile"} if find_spec("soundfile") else set()


def _read_wav(path: Path) -> tuple[NDArray[Any], int]:
    import warnings

    from scipy.io import wavfile  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        # Chunks with notes are skipped.
        warnings.simplefilter("ignore", wavfile.WavFileWarning)
        rate, samples = wavfile.read(str(path))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128, int(rate)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min), int(rate)
    return samples.astype(np.float32), int(rate)
