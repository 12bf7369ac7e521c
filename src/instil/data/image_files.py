"""Files and data URLs of the images of conversations."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA = "data:"
"""Beginning of a URL that holds an image as base64."""


def open_image(source: str, where: str) -> Any:
    """Return a Pillow image in RGB.

    Args:
        source: file, or a data URL with base64.
        where: file and line, for messages.

    Raises:
        ValueError: if it is missing or broken.
    """
    from PIL import Image, ImageOps

    try:
        content = image_bytes(source)
        with Image.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(
            f"{where}: the image {source:.200} cannot be read: {reason}. Expected an image file"
        ) from error


def located_images(sources: Sequence[str], folder: str) -> tuple[str, ...]:
    """Return the sources of images with paths that start from a folder.

    Args:
        sources: files or data URLs.
        folder: folder of the data file.
    """
    return tuple(
        source if source.startswith(DATA) else str(Path(folder) / Path(source).expanduser())
        for source in sources
    )


def image_bytes(source: str) -> bytes:
    """Return the bytes of a file, or of a data URL.

    Args:
        source: file, or a data URL with base64.

    Raises:
        ValueError: for a URL that is not base64.
        OSError: for a file that cannot be read.
    """
    if not source.startswith(DATA):
        return Path(source).read_bytes()
    try:
        return base64.b64decode(source.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"its URL is not base64: {error}") from error


def image_state(source: str) -> list[Any]:
    """Return source, size, time of change and SHA-256 of an image."""
    content = hashlib.sha256(image_bytes(source)).hexdigest()
    return [source, *_size_and_time(source), content]


def is_unchanged(state: Sequence[Any]) -> bool:
    """Whether an image has the size and time of a result of ``image_state``."""
    try:
        return _size_and_time(state[0]) == list(state[1:3])
    except OSError:
        return False


def _size_and_time(source: str) -> list[int]:
    if source.startswith(DATA):
        return [len(source), 0]
    status = Path(source).stat()
    return [status.st_size, status.st_mtime_ns]
