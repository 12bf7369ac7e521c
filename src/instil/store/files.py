"""Compressed files of tensors, with the checksum of their content."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, BinaryIO

import fsspec  # type: ignore[import-untyped]
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from instil.files.atomic import atomic
from instil.files.cache import cache_folder
from instil.files.checksums import BLOCK_BYTES, DamagedFileError, check_sha256
from instil.store.manifest import StoredFile
from instil.store.outputs import Tensors

# Higher levels cost time and gain little: the content is noisy.
COMPRESSION_LEVEL = 3
MAX_WINDOW_BYTES = 2**27
"""Memory that a compressed frame may make the decompressor use."""
REMEDY = "Record again (instil record RECIPE), which repeats missing and damaged files"


def zstandard_library() -> Any:
    """Return the module ``zstandard``.

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            'stores of teacher outputs need zstandard: pip install "instil[record]"'
        ) from error
    return zstandard


def write_tensors(path: Path, tensors: Tensors) -> StoredFile:
    """Write a file completely or not at all.

    Args:
        path: file.
        tensors: content.

    Returns:
        Checksum and size of the content before compression.
    """
    data = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(
            zstandard_library().ZstdCompressor(level=COMPRESSION_LEVEL).compress(data)
        )
    return StoredFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def is_intact(path: Path, expected: StoredFile) -> bool:
    """Whether a compressed file exists and has the expected content.

    Args:
        path: file.
        expected: checksum and size of its content.
    """
    try:
        with path.open("rb") as file:
            _unpack(file, None, expected)
    except (FileNotFoundError, ValueError):
        return False
    return True


def read_tensors(path: Path, expected: StoredFile) -> Tensors:
    """Read a compressed file into memory.

    Args:
        path: file.
        expected: checksum and size of its content.

    Returns:
        The tensors by name.

    Raises:
        ValueError: if it is damaged.
    """
    content = io.BytesIO()
    with path.open("rb") as file:
        _unpack(file, content, expected)
    return load(content.getvalue())


def fetch_unpacked(url: str, expected: StoredFile) -> Path:
    """Unpack a file at a path or URL into ``$INSTIL_CACHE`` or ``~/.cache/instil``, once.

    An unpacked file is verified whenever it is opened. A damaged one is unpacked again.

    Args:
        url: path or URL of the compressed file.
        expected: checksum and size of its content.

    Returns:
        The unpacked file.

    Raises:
        ValueError: if the compressed file is damaged, or its content is larger than expected.
        FileNotFoundError: if there is no such file.
    """
    cache = cache_folder()
    # The checksum is the name, so that stores share equal files and a new recording gets a new one.
    unpacked = cache / "stores" / f"{expected.sha256}.safetensors"
    if unpacked.exists():
        try:
            check_sha256(unpacked, expected.sha256, REMEDY)
            return unpacked
        except DamagedFileError:
            unpacked.unlink(missing_ok=True)
    try:
        with (
            fsspec.open(url, "rb") as source,
            atomic(unpacked) as temporary,
            temporary.open("wb") as target,
        ):
            _unpack(source, target, expected)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the store lacks {url}, which its manifest lists; the file was lost. {REMEDY}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{url} is damaged: {error}. {REMEDY}") from error
    return unpacked


def _unpack(source: BinaryIO, target: BinaryIO | None, expected: StoredFile) -> None:
    """Decompress the expected content block by block; ValueError for any other content."""
    zstandard = zstandard_library()
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    hasher = hashlib.sha256()
    size = 0
    try:
        with decompressor.stream_reader(source, closefd=False) as reader:
            while block := reader.read(BLOCK_BYTES):
                size += len(block)
                # A small file may unpack to any size: stop before it fills the disk.
                if size > expected.size:
                    raise ValueError(
                        f"it unpacks to more than the {expected.size} bytes of the manifest"
                    )
                hasher.update(block)
                if target is not None:
                    target.write(block)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if hasher.hexdigest() != expected.sha256:
        raise ValueError(
            f"wrong checksum. Expected {expected.sha256[:12]} by the manifest, got "
            f"{hasher.hexdigest()[:12]}"
        )


def map_tensors(path: Path, url: str) -> dict[str, Tensor]:
    """Map the tensors of an unpacked file into memory; only the parts that are read are loaded.

    Args:
        path: unpacked file.
        url: original file, for messages.

    Returns:
        The tensors by name.

    Raises:
        ValueError: if it is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise ValueError(f"{url} has no tensors: {error}. {REMEDY}") from error
