"""Rows of conversations from JSON Lines, JSON and Parquet files and data sets of ``datasets``."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from instil.data.chat_chunk import Chunk
from instil.data.huggingface_columns import named_parts
from instil.data.paths import located
from instil.data.tables import SPLITS, Files, files_of, import_parquet
from instil.files.checksums import file_sha256

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
"""Endings of files with conversations."""
CHUNK_ROWS = 256
"""Number of rows that are read, and encoded by one process, at a time."""


@dataclass(frozen=True)
class ChatFile:
    """One file with conversations.

    Attributes:
        path: file with one of the ``ENDINGS``.
    """

    path: Path

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def digest(self) -> str:
        """Return the SHA-256 of the content."""
        return file_sha256(self.path)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, a few at a time.

        Raises:
            ValueError: for a file that cannot be read.
        """
        folder = str(self.path.resolve().parent)
        for chunk in self._chunks():
            yield chunk._replace(folder=folder)

    def _chunks(self) -> Iterator[Chunk]:
        name = self.path.name
        if name.endswith(".parquet"):
            yield from self._parquet_chunks()
        elif name.endswith(".json"):
            yield from _chunks(iter(self._json_rows()), name, "row", 0)
        else:
            opened = gzip.open if name.endswith(".gz") else open
            try:
                # Some programs write a byte order mark in front of the first line.
                with opened(self.path, "rt", encoding="utf-8-sig") as lines:
                    yield from _chunks(lines, name, "line", 1)
            except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
                raise ValueError(f"files: {self.path} cannot be read: {error}") from error

    def _json_rows(self) -> list[Any]:
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"files: {self.path} is not JSON: {error}") from error
        if not isinstance(rows, list):
            raise ValueError(
                f"files: {self.path} holds a JSON {type(rows).__name__}. Expected a list of rows, "
                "or one row per line in a .jsonl file"
            )
        return rows

    def _parquet_chunks(self) -> Iterator[Chunk]:
        parquet = import_parquet()
        import pyarrow  # type: ignore[import-untyped]

        start = 0
        try:
            for batch in parquet.ParquetFile(self.path).iter_batches(batch_size=CHUNK_ROWS):
                yield Chunk(self.path.name, "row", start, batch.to_pylist())
                start += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"files: {self.path} cannot be read as Parquet: {error}") from error


@dataclass(frozen=True)
class ChatDataset:
    """One split of a data set of ``datasets``.

    Attributes:
        name: name for messages.
        dataset: ``datasets.Dataset``.
    """

    name: str
    dataset: Any

    @property
    def num_bytes(self) -> int:
        """Size of the data in memory-mapped files."""
        return int(self.dataset.data.nbytes)

    def digest(self) -> str:
        """Return the fingerprint that ``datasets`` keeps, with the number of rows and columns."""
        facts = (self.dataset._fingerprint, len(self.dataset), self.dataset.column_names)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, a few at a time."""
        for start in range(0, len(self.dataset), CHUNK_ROWS):
            columns = self.dataset[start : start + CHUNK_ROWS]
            values = zip(*columns.values(), strict=True)
            rows = [dict(zip(columns, row, strict=True)) for row in values]
            yield Chunk(self.name, "row", start, rows)


ChatSource = ChatFile | ChatDataset


def chat_sources(
    files: Files, config: str | None = None, base: Path = Path()
) -> dict[str, list[ChatSource]]:
    """Return the sources of each split.

    Args:
        files: a file or pattern, a folder that ``save_to_disk`` wrote, a name on the Hugging Face
            hub, or several of these by split.
        config: configuration of a data set on the hub.
        base: folder that relative paths start from.

    Raises:
        ValueError: for a file that does not exist or has another ending, and a data set that
            cannot be loaded.
    """
    if isinstance(files, str):
        if (data := _dataset(files, config, base)) is not None:
            parts = named_parts(data, files)
            return {
                split: [ChatDataset(f"{files} ({split})", part)] for split, part in parts.items()
            }
        return {"train": _files({"train": files}, base)["train"]}
    sources: dict[str, list[ChatSource]] = {}
    for split, names in files.items():
        sources[split] = []
        for name in [names] if isinstance(names, str) else names:
            sources[split] += _sources_of_split(split, name, config, base)
    return sources


def _sources_of_split(split: str, name: str, config: str | None, base: Path) -> list[ChatSource]:
    data = _dataset(name, config, base) if split in SPLITS else None
    if data is None:
        return _files({split: name}, base)[split]
    if not isinstance(data, Mapping):
        return [ChatDataset(name, data)]
    if split not in data:
        raise ValueError(f"files.{split}: '{name}' has the splits {', '.join(data)}, not {split}")
    return [ChatDataset(f"{name} ({split})", data[split])]


def _files(files: Files, base: Path) -> dict[str, list[ChatSource]]:
    sources: dict[str, list[ChatSource]] = {}
    for split, paths in files_of(files, base).items():
        for path in paths:
            if not path.name.endswith(ENDINGS):
                raise ValueError(
                    f"files.{split}: {path.name} has an unknown ending. Expected one of "
                    f"{', '.join(ENDINGS)}, or a folder that save_to_disk wrote"
                )
        sources[split] = [ChatFile(path) for path in paths]
    return sources


def _dataset(name: str, config: str | None, base: Path) -> Any:
    """Return the data set of a folder or of the hub; None for the name of a file or pattern."""
    if "*" in name or name.endswith(ENDINGS):
        return None
    folder = _folder(name, base)
    if folder is not None and any(folder.glob("*.json*")) and not _is_saved(folder):
        raise ValueError(
            f"files: {folder} is a plain folder. Expected a folder that save_to_disk wrote, or a "
            f"pattern such as {name}/*.jsonl"
        )
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            f"files: '{name}' needs the package datasets. Install it with "
            'pip install "instil[text]"'
        ) from error
    try:
        if folder is not None:
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError) as error:
        endings = ", ".join(ENDINGS)
        raise ValueError(
            f"files: '{name}' is neither a file ({endings}) nor a data set in {base.resolve()}, "
            f"and cannot be loaded from the hub: {error}"
        ) from error


def _folder(name: str, base: Path) -> Path | None:
    try:
        path = located(name, base)
    except ValueError:
        return None
    return path if path.is_dir() else None


def _is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _chunks(rows: Iterator[Any], name: str, unit: str, first: int) -> Iterator[Chunk]:
    while part := list(islice(rows, CHUNK_ROWS)):
        yield Chunk(name, unit, first, part)
        first += len(part)


def total_bytes(sources: list[ChatSource]) -> int:
    """Return the size of all sources."""
    return sum(source.num_bytes for source in sources)
