"""Samples in tar files in the format of webdataset."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instil.data.streams import Row
from instil.data.tables import Files, files_of

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
NUMBERS = ("cls", "cls2", "index", "inx", "id")
TEXTS = ("txt", "text", "transcript")
TABLES = ("json", "jsn")


def tar_files(path: Files, base: Path) -> dict[str, list[Path]]:
    """Return the tar files of each split.

    Args:
        path: files with ranges in braces (``{000..003}``) or a ``*``, also by split.
        base: folder that relative paths start from.

    Raises:
        ValueError: without the package webdataset, and for files that do not exist.
    """
    by_split = {"train": path} if isinstance(path, str) else path
    expand = _webdataset_module("shardlists").expand_urls
    names: dict[str, str | list[str]] = {}
    for split, patterns in by_split.items():
        names[split] = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            names[split] += expand(pattern)
    return files_of(names, base, "path")


@dataclass(frozen=True)
class ReadTar:
    """Reader of one tar file, for ``Stream``.

    Args:
        files: the tar files.
        columns: file extension of each batch key, or several ones separated by semicolons.
    """

    files: Sequence[Path]
    columns: Mapping[str, str]

    def __call__(self, shard: int) -> Iterator[Row]:
        """Yield the samples of a tar file as dicts by batch key.

        Raises:
            ValueError: for a damaged file, and a sample without a file that it needs.
        """
        path = self.files[shard]
        iterators = _webdataset_module("tariterators")
        try:
            with path.open("rb") as stream:
                files = iterators.tar_file_expander([{"url": path.name, "stream": stream}])
                for sample in iterators.group_by_keys(files):
                    yield {key: _value(sample, key, names) for key, names in self.columns.items()}
        except Exception as error:  # webdataset adds open files to the arguments of its errors
            reason = error.args[0] if error.args else type(error).__name__
            raise ValueError(f"{path}: {reason}") from error


def _value(sample: Mapping[str, Any], key: str, names: str) -> Any:
    """Value of the first extension that a sample has."""
    for name in names.split(";"):
        if name in sample:
            return _decoded(name, sample[name])
    if key == "label":
        return None
    present = ", ".join(name for name in sample if not name.startswith("__"))
    raise ValueError(
        f"columns.{key}: sample '{sample['__key__']}' has no file .{names}. Expected one of its "
        f"extensions: {present}"
    )


def _decoded(name: str, content: bytes) -> Any:
    """Content of a file; files that run code when they are read, as pickles, are refused."""
    kind = name.rpartition(".")[2]
    if kind in PICTURES:
        return content
    if kind in NUMBERS:
        return int(content)
    if kind in TEXTS:
        return content.decode()
    if kind in TABLES:
        return json.loads(content)
    if kind == "npy":
        return np.load(io.BytesIO(content), allow_pickle=False)
    supported = ", ".join(PICTURES + NUMBERS + TEXTS + TABLES)
    raise ValueError(f"columns: unknown extension .{name}. Expected one of {supported}, npy")


def _webdataset_module(name: str) -> Any:
    try:
        return importlib.import_module(f"webdataset.{name}")
    except ImportError as error:
        raise ValueError(
            "webdataset: the package webdataset is not installed. Install it with pip install "
            '"instil[webdataset]"'
        ) from error
