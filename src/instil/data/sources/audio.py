"""Source ``audio``: audio files with transcripts, classes or speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Doc

from instil.data.column_samples import ClassesOption, LabelsOption
from instil.data.manifests import Files, Manifest, read_manifests
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.tables import column_splits
from instil.data.waveforms import read_waveform
from instil.functional.log_mel import log_mel

Features = Literal["log_mel", "waveform"]


FilesOption = Annotated[
    Files,
    Doc(
        "manifest (.jsonl or .csv), folder with one folder per class, or these by split "
        "(train, validation, test)"
    ),
]
ColumnsOption = Annotated[
    dict[str, str] | None,
    Doc("fields of a manifest; null: `{audio: audio, label: text}`"),
]
ConvertOption = Annotated[
    bool, Doc("whether other rates are resampled and several channels are averaged")
]
FeaturesOption = Annotated[
    Features, Doc("log_mel: frames of mel bands; waveform: samples with mean 0 and deviation 1")
]
MaxSecondsOption = Annotated[
    float, Gt(0), Doc("length after which a recording is refused, in seconds")
]


def audio(
    files: FilesOption,
    columns: ColumnsOption = None,
    rate: Annotated[int, Gt(0), Doc("samples per second of the files")] = 16000,
    convert: ConvertOption = False,
    features: FeaturesOption = "log_mel",
    bands: Annotated[int, Gt(0), Doc("number of mel bands")] = 40,
    window: Annotated[float, Gt(0), Doc("length of a frame, in seconds")] = 0.025,
    hop: Annotated[float, Gt(0), Doc("distance of two frames, in seconds")] = 0.010,
    max_seconds: MaxSecondsOption = 20.0,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Audio files that a manifest lists, or folders of files by class, read into memory.

    A line of a manifest has the path of a file, relative to the manifest, and its label: a text for
    ``speech_recognition``, the name of a class or speaker for other tasks. A label that is missing
    or empty is none. Symbols of texts are characters; class 0 is the blank.

    A batch has ``audio``, frames (N, T, bands) or waveforms (N, T), padded with 0, and
    ``audio_length``.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a manifest or file that cannot be read, another rate, several channels, and
            a recording that is empty or too long.
    """
    fields = {"audio": "audio", "label": "text"} if columns is None else columns
    manifests = read_manifests(files, fields, base)

    def read(path: Path) -> NDArray[Any]:
        waveform = read_waveform(path, rate, convert)
        seconds = len(waveform) / rate
        if seconds > max_seconds:
            raise ValueError(
                f"{path} has {seconds:.1f} seconds. Expected at most {max_seconds:g}. Cut it at a "
                "pause, or set max_seconds"
            )
        samples = torch.from_numpy(waveform)
        if features == "waveform":
            return standardized(samples).numpy()
        return log_mel(samples, rate, bands, window, hop).numpy()

    parts = {name: _columns(manifest, read) for name, manifest in manifests.items()}
    return column_splits(parts, classes, labels, (validation, test), task_name)


def standardized(waveform: Tensor) -> Tensor:
    """Return a waveform (T,) with mean 0 and variance 1, as wav2vec 2.0 and HuBERT read it."""
    centred = waveform - waveform.mean()
    return centred / (centred.square().mean() + 1e-7).sqrt()


def _columns(manifest: Manifest, read: Any) -> dict[str, Any]:
    return {"audio": [read(path) for path in manifest.paths], **manifest.columns}
