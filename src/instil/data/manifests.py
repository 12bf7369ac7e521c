"""Lists of audio files with labels: JSON Lines, CSV, or one folder per class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.columns import column_of
from instil.data.paths import located
from instil.data.tables import SPLITS, Files, check_columns, files_of, read_jsonl
from instil.data.waveforms import SUFFIXES, audio_files

__all__ = ["Files", "Manifest", "read_manifests"]


@dataclass(frozen=True)
class Manifest:
    """Files of one split and their other columns.

    Args:
        paths: audio files.
        columns: values by batch key, such as ``label``.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, Any]


def read_manifests(files: Files, fields: Mapping[str, str], base: Path) -> dict[str, Manifest]:
    """Read the lists of all splits.

    Args:
        files: manifest or folder, or these by split.
        fields: field of each batch key; ``audio`` holds the path of a file.
        base: folder that relative paths start from.

    Raises:
        ValueError: for a list that cannot be read, a missing field and a missing file.
    """
    if "audio" not in fields:
        raise ValueError("columns: no field for audio. Expected the field with the paths of files")
    if isinstance(files, str) and located(files, base).is_dir():
        root = located(files, base)
        folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
        if "train" not in folders:
            folders = {"train": root}
        return {name: _of_folder(folder) for name, folder in folders.items()}
    manifests = {}
    for split, paths in files_of(files, base).items():
        parts = [_of_folder(path) if path.is_dir() else _of_file(path, fields) for path in paths]
        manifests[split] = _joined(parts)
    return manifests


def _of_folder(folder: Path) -> Manifest:
    """One folder per class; the label is the name of the folder."""
    paths: list[Path] = []
    names: list[str] = []
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = audio_files(entry)
        if not files:
            raise ValueError(
                f"files: {entry} has no audio files. Expected files with the extensions "
                f"{', '.join(SUFFIXES)}"
            )
        paths += files
        names += [entry.name] * len(files)
    if not paths:
        raise ValueError(f"files: {folder.resolve()} has no folders. Expected one per class")
    return Manifest(tuple(paths), {"label": column_of(names, "label")})


def _of_file(path: Path, fields: Mapping[str, str]) -> Manifest:
    names = list(fields.values())
    table = _read_csv(path, names) if path.suffix.lower() == ".csv" else read_jsonl(path, names)
    paths: list[Path] = []
    for row, name in enumerate(table[fields["audio"]]):
        file = path.parent / str(name)
        if not name or not file.is_file():
            raise ValueError(
                f"{path}, row {row + 1}: no audio file '{name}'. Expected a path relative to "
                f"{path.parent.resolve()}"
            )
        paths.append(file)
    columns = {}
    for key, field in fields.items():
        if key != "audio":
            columns[key] = column_of(table[field], key)
    return Manifest(tuple(paths), columns)


def _read_csv(path: Path, names: list[str]) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
            present = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    check_columns(path, names, present)
    return {name: [row[name] for row in rows] for name in names}


def _joined(parts: Iterable[Manifest]) -> Manifest:
    paths: list[Path] = []
    columns: dict[str, list[Any]] = {}
    for part in parts:
        paths += part.paths
        for key, values in part.columns.items():
            columns.setdefault(key, []).extend(values)
    return Manifest(tuple(paths), {key: column_of(one, key) for key, one in columns.items()})
