"""Arrays of a NumPy archive, whose headers are checked against the file before any is read."""

from __future__ import annotations

import contextlib
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

ENDING = ".npy"
# Images compress by less than 20. An archive that unpacks to gigabytes and compresses by more
# than this is a decompression bomb, or of one colour.
LARGEST_RATIO = 200
ALWAYS_ALLOWED = 2**30
"""Bytes after decompression that are accepted at any ratio."""
FAULTS = (
    *(ValueError, TypeError, EOFError, OSError, OverflowError, SyntaxError, NotImplementedError),
    *(RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""Exceptions that zipfile and numpy raise for damaged archives."""


@contextlib.contextmanager
def named_errors(file: Path) -> Iterator[None]:
    """Add the name of a file to errors about its arrays.

    Args:
        file: path of the archive.

    Raises:
        ValueError: for a ValueError, a TypeError or an IndexError inside.
    """
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{file}: {error}") from error


def read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of a ``.npz`` file into memory.

    Args:
        file: path of the archive.

    Returns:
        The arrays by name.

    Raises:
        ValueError: if the file is not an archive of plain arrays, its headers claim other sizes
            than the archive holds, or it unpacks to more than the memory can hold.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [one for one in archive.infolist() if one.filename.endswith(ENDING)]
            _check_total(sum(entry.file_size for entry in entries), file.stat().st_size)
            return {entry.filename.removesuffix(ENDING): _read(archive, entry) for entry in entries}
    except MemoryError as error:
        raise ValueError(f"{file} does not fit into the memory of this process") from error
    except FAULTS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{file} cannot be read as a .npz archive of plain arrays: {reason}"
        ) from error


def archive_class_names(arrays: Mapping[str, NDArray[np.generic]]) -> list[str] | None:
    """Return the texts of the array ``classes``; None if the archive has none."""
    return [str(name) for name in arrays["classes"].tolist()] if "classes" in arrays else None


def _check_total(unpacked: int, packed: int) -> None:
    if unpacked > max(ALWAYS_ALLOWED, LARGEST_RATIO * packed):
        raise ValueError(
            f"{packed} bytes claim to unpack to {unpacked}, more than {LARGEST_RATIO} times that "
            "size"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(entry) as stream:
        _check_header(stream, entry)
    with archive.open(entry) as stream:
        array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _check_header(stream: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Raise ValueError if shape and type do not match the size in the archive."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(
            f"'{entry.filename}' has the unknown format {version}. Expected (1, 0) or (2, 0)"
        )
    read_header: Any = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError(
            f"'{entry.filename}' holds Python objects. Expected plain numbers or texts"
        )
    claimed = math.prod(shape) * dtype.itemsize
    held = entry.file_size - stream.tell()
    if claimed != held or min(shape, default=0) < 0:
        raise ValueError(
            f"'{entry.filename}' claims the shape {shape}, {claimed} bytes, and has {held}"
        )
