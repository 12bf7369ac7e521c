"""Pictures, decoded when they are asked for, all of one mode and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Size = int | list[int] | None


@dataclass(frozen=True)
class Pictures:
    """Opens picture ``row`` as PIL gives it, in ``mode`` (``L`` or ``RGB``), resized to ``size`` (H, W) where one is given."""

    open: Callable[[int], Any]
    mode: str
    size: tuple[int, int] | None = None

    def __call__(self, row: int) -> Any:
        picture = self.open(row)
        if picture.mode == "P":
            picture = picture.convert("RGBA")  # a palette may hold transparency
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        if self.size and picture.size != self.size[::-1]:
            picture = picture.resize(self.size[::-1], _bilinear())
        return picture


def pictures(open: Callable[[int], Any], channels: int | None, size: Size) -> Pictures:
    """Pictures with 1 or 3 ``channels`` (None: as the first one), resized to ``size`` (one number, or H and W).

    Raises ValueError for other numbers of channels and sizes.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if isinstance(size, list) and len(size) != 2:
        raise ValueError(f"size must be one number or [height, width], not {size}")
    grey = channels == 1 or (channels is None and open(0).mode in ("1", "L", "LA"))
    shape = (size, size) if isinstance(size, int) else (size[0], size[1]) if size else None
    return Pictures(open, "L" if grey else "RGB", shape)


@dataclass(frozen=True)
class Files:
    """Opens file number ``row``; ValueError with its name where it is no picture."""

    paths: tuple[Path, ...]

    def __call__(self, row: int) -> Any:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.paths[row]) as picture:
                picture.load()
                return picture
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{self.paths[row]} cannot be read as a picture: {error}") from error


def extensions() -> set[str]:
    """File extensions of pictures that PIL reads; ValueError where it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            'pictures from files need the package pillow: pip install "instil[vision]"'
        ) from error
    known = Image.registered_extensions()
    return {extension for extension, form in known.items() if form in Image.OPEN}


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR
