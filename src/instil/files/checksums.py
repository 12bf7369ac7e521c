"""SHA-256 checksums stored with every file that the package reads back, and their verification."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

BLOCK_BYTES = 1 << 20
JSON_KEY = "sha256"
TENSORS_KEY = "instil.sha256"
# Behind the content of a binary file. PyTorch still opens a checkpoint that ends with it: a zip
# archive is found from its end record, and a comment may follow that.
FOOTER_MARK = b"\ninstil sha256 "
FOOTER_BYTES = len(FOOTER_MARK) + 64
NO_DIGEST = "0" * 64
LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


class DamagedFileError(ValueError):
    """A file whose content differs from the checksum that was stored when it was written."""


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits.

    Args:
        path: the file. It is read in blocks, so its size does not matter.

    Returns:
        The digest.

    Raises:
        OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return _digest_of_next(file, sys.maxsize)


def check_sha256(path: str | Path, expected: str, remedy: str) -> None:
    """Compare a file with a checksum that is stored elsewhere, such as in a manifest or its name.

    Args:
        path: the file.
        expected: 64 hexadecimal digits.
        remedy: what the user can do, as the last sentence of the error, without a full stop.

    Raises:
        DamagedFileError: if the content differs.
        OSError: if the file cannot be read.
    """
    _compare(path, expected, file_sha256(path), remedy)


def append_checksum(path: str | Path) -> None:
    """Append the SHA-256 of a file's content to it, in 79 bytes that PyTorch's reader ignores.

    Args:
        path: a file that was just written, such as a checkpoint of ``torch.save``.
    """
    digest = file_sha256(path)
    with Path(path).open("ab") as file:
        file.write(FOOTER_MARK + digest.encode())


def check_appended(path: str | Path, remedy: str) -> None:
    """Verify a file that ends with the checksum of ``append_checksum``.

    Args:
        path: the file.
        remedy: the last sentence of the error, without a full stop.

    Raises:
        DamagedFileError: if the checksum is missing or the content differs.
        OSError: if the file cannot be read.
    """
    length = Path(path).stat().st_size - FOOTER_BYTES
    with Path(path).open("rb") as file:
        digest = _digest_of_next(file, max(length, 0))
        footer = file.read()
    if length < 0 or not footer.startswith(FOOTER_MARK):
        raise DamagedFileError(f"{path}: the file is cut off or has no checksum. {remedy}.")
    stored = footer.removeprefix(FOOTER_MARK).decode("ascii", "replace")
    _compare(path, stored, digest, remedy)


def json_with_checksum(content: dict[str, Any]) -> str:
    """Serialise a dictionary as JSON with the SHA-256 of its other entries under ``sha256``.

    Args:
        content: JSON values by string keys; NaN and infinities are refused.

    Returns:
        The text of the file.

    Example:
        >>> sorted(json.loads(json_with_checksum({"a": 1})))
        ['a', 'sha256']
    """
    # Through JSON once: number keys become text and tuples lists before the checksum is taken.
    entries = json.loads(json.dumps(content, allow_nan=False))
    entries.pop(JSON_KEY, None)
    whole = {JSON_KEY: _digest_of_json(entries), **entries}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json_with_checksum(path: str | Path, remedy: str) -> dict[str, Any]:
    """Read what ``json_with_checksum`` wrote.

    Args:
        path: the file.
        remedy: the last sentence of the error, without a full stop.

    Returns:
        The dictionary, without its checksum.

    Raises:
        DamagedFileError: if the file is not JSON with a checksum, or differs from its checksum.
        OSError: if the file cannot be read.
    """
    return parse_json_with_checksum(Path(path).read_bytes(), path, remedy)


def parse_json_with_checksum(data: bytes, path: str | Path, remedy: str) -> dict[str, Any]:
    """Parse what ``json_with_checksum`` wrote, wherever it was read from.

    Args:
        data: the content of the file.
        path: path or URL of the file, for messages.
        remedy: the last sentence of the error, without a full stop.

    Returns:
        The dictionary, without its checksum.

    Raises:
        DamagedFileError: if the data are not JSON with a checksum, or differ from it.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: the file is not valid JSON ({error}). {remedy}.") from None
    if not isinstance(content, dict) or not isinstance(content.get(JSON_KEY), str):
        raise DamagedFileError(f"{path}: the file has no checksum '{JSON_KEY}'. {remedy}.")
    expected = content.pop(JSON_KEY)
    try:
        digest = _digest_of_json(content)
    except (ValueError, RecursionError):  # NaN, a lone surrogate, or nested too deeply
        digest = "of no JSON value"
    _compare(path, expected, digest, remedy)
    return content


def seal_tensors(path: str | Path) -> None:
    """Store the SHA-256 of a safetensors file in its own metadata, with the keys in sorted order.

    The writer of safetensors orders metadata at random; in sorted order equal weights give equal
    files.

    Args:
        path: a file that was written with the metadata ``TENSORS_KEY: NO_DIGEST``.

    Raises:
        ValueError: if that entry is missing.
    """
    with Path(path).open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.get("__metadata__", {})
        if metadata.get(TENSORS_KEY) != NO_DIGEST:
            raise ValueError(f"{path}: the metadata lack '{TENSORS_KEY}' with 64 zeros")
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: the sorted header does not fit into {length} bytes")
        text = text.ljust(length)
        file.seek(8)
        file.write(text)
        digest = _digest_of_tensors(file)
        file.seek(8 + text.index(NO_DIGEST.encode()))
        file.write(digest.encode())


def check_tensors(path: str | Path, remedy: str, required: bool = True) -> None:
    """Verify a safetensors file that ``seal_tensors`` completed.

    Args:
        path: the file.
        remedy: the last sentence of the error, without a full stop.
        required: whether a file without a checksum is an error.

    Raises:
        DamagedFileError: if the header cannot be read or the content differs.
        OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        expected = _stored_digest(file)
        if expected is None and not required:
            return
        if expected is None:
            raise DamagedFileError(f"{path}: the file is cut off or has no checksum. {remedy}.")
        _compare(path, expected, _digest_of_tensors(file, expected), remedy)


def _stored_digest(file: BinaryIO) -> str | None:
    """The checksum in the header of an open safetensors file, None if there is none to be read."""
    length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        return None
    try:
        digest = json.loads(file.read(length))["__metadata__"][TENSORS_KEY]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return digest if isinstance(digest, str) and len(digest) == len(NO_DIGEST) else None


def _digest_of_tensors(file: BinaryIO, stored: str = NO_DIGEST) -> str:
    """SHA-256 of an open safetensors file in which ``stored`` is replaced by zeros."""
    file.seek(0)
    prefix = file.read(8)
    header = file.read(int.from_bytes(prefix, "little"))
    hasher = hashlib.sha256(prefix + header.replace(stored.encode(), NO_DIGEST.encode(), 1))
    while block := file.read(BLOCK_BYTES):
        hasher.update(block)
    return hasher.hexdigest()


def _digest_of_next(file: BinaryIO, length: int) -> str:
    """SHA-256 of the next ``length`` bytes of an open file."""
    hasher = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, BLOCK_BYTES))):
        hasher.update(block)
        length -= len(block)
    return hasher.hexdigest()


def _digest_of_json(entries: dict[str, Any]) -> str:
    """SHA-256 of JSON values, which does not depend on the layout of the file."""
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _compare(path: str | Path, expected: str, actual: str, remedy: str) -> None:
    if expected != actual:
        sums = f"Expected the SHA-256 {expected[:12]}..., got {actual[:12]}..."
        raise DamagedFileError(f"{path}: the file is damaged. {sums} {remedy}.")
