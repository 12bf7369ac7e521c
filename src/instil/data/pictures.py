"""Pictures, decoded when they are asked for, all of one mode and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Doc

Size = int | list[int] | None
SizeOption = Annotated[
    Size,
    Doc("height and width to resize pictures to, or one number for both; null: as they are"),
]
ChannelsOption = Annotated[
    int | None,
    Doc("1 (grey), 3 (colour) or 4 (colour and alpha); null: 1 or 3, as the first picture has"),
]
BackgroundOption = Annotated[
    str,
    Doc(
        "colour behind transparent pixels, by its name or as #rrggbb; with 4 channels alpha is kept"
    ),
]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of Pillow with more than 8 bits a pixel; all of them are grey."""
ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Pictures:
    """Reader of picture ``row`` in one mode and size.

    16-bit pictures are scaled to [0, 1] by 65535, and floating-point ones are in [0, 1] already.
    Pictures with an EXIF orientation are turned upright.

    Args:
        open: gives picture ``row`` as Pillow has it.
        mode: ``L``, ``RGB`` or ``RGBA``.
        size: (height, width), or None for the size of each picture.
        background: colour behind transparent pixels where the mode has no alpha.
    """

    open: Callable[[int], Any]
    mode: str
    size: tuple[int, int] | None = None
    background: str = "white"

    def __call__(self, row: int) -> Any:
        """Picture as Pillow's, uint8; float32 (H, W) or (H, W, C) in [0, 1] of a deep one."""
        picture = self.open(row)
        try:
            picture = _upright(picture)
            if picture.mode in DEEP_MODES:
                return self._deep(picture)
            return self._resized(self._in_mode(picture))
        except Exception as error:  # decoders and conversions of Pillow raise anything
            name = picture_name(self.open, row)
            raise ValueError(f"{name}: cannot be converted to {self.mode}: {error}") from error

    def _in_mode(self, picture: Any) -> Any:
        if picture.mode == self.mode:
            return picture
        if not _is_transparent(picture):
            return picture.convert("RGB" if picture.mode == "P" else self.mode).convert(self.mode)
        picture = picture.convert("RGBA")
        if self.mode == "RGBA":
            return picture
        from PIL import Image

        ground = Image.new("RGBA", picture.size, self.background)
        return Image.alpha_composite(ground, picture).convert(self.mode)

    def _deep(self, picture: Any) -> NDArray[np.float32]:
        """Grey values in [0, 1], repeated for each channel; alpha is opaque."""
        from PIL import Image

        values = np.asarray(picture, dtype=np.float32)
        if picture.mode != "F":
            values = values / np.float32(65535)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"its values go from {values.min():g} to {values.max():g} (mode {picture.mode}). "
                "Expected 8 or 16 bits a pixel, or floating-point values in [0, 1]"
            )
        if self.size and values.shape != self.size:
            values = np.asarray(self._resized(Image.fromarray(values))).clip(0, 1)
        if self.mode == "L":
            return values
        colour = np.repeat(values[:, :, None], 3, axis=2)
        if self.mode == "RGB":
            return colour
        return np.concatenate([colour, np.ones_like(values)[:, :, None]], axis=2)

    def _resized(self, picture: Any) -> Any:
        from PIL import Image

        if self.size and picture.size != self.size[::-1]:
            return picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return picture


def pictures(
    open: Callable[[int], Any],
    channels: int | None,
    size: Size,
    background: str = "white",
) -> Pictures:
    """Reader of pictures with the options of a data source.

    Args:
        open: gives picture ``row`` as Pillow has it.
        channels: 1, 3 or 4; None for 1 or 3, as the first picture has.
        size: one number, or height and width; None for the size of each picture.
        background: colour behind transparent pixels.

    Returns:
        Reader with one mode and size.

    Raises:
        ValueError: for another number of channels, a size or a colour that does not exist.
    """
    if channels is not None and channels not in MODES:
        raise ValueError(f"channels: expected 1, 3 or 4, got {channels}")
    if isinstance(size, list) and len(size) != 2:
        raise ValueError(f"size: expected one number or [height, width], got {size}")
    _check_colour(background)
    if channels is None:
        channels = 1 if open(0).mode in ("1", "L", "LA", "La", *DEEP_MODES) else 3
    shape = (size, size) if isinstance(size, int) else (size[0], size[1]) if size else None
    return Pictures(open, MODES[channels], shape, background)


@dataclass(frozen=True)
class Files:
    """Opens file ``row``; ValueError with its name where it is no picture."""

    paths: tuple[Path, ...]

    def __call__(self, row: int) -> Any:
        from PIL import Image

        try:
            with Image.open(self.paths[row]) as picture:
                picture.load()
                return picture
        except Exception as error:  # plugins of Pillow raise anything for a damaged file
            raise ValueError(f"{self.paths[row]} cannot be read as a picture: {error}") from error


def picture_name(open: Callable[[int], Any], row: int) -> str:
    """File of picture ``row``, or its row where it has none."""
    return str(open.paths[row]) if isinstance(open, Files) else f"picture {row}"


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


def picture_files(place: Path) -> list[Path]:
    """Pictures below a folder by their extension, in alphabetical order."""
    known = extensions()
    return sorted(
        file
        for file in place.rglob("*")
        if file.suffix.lower() in known and not file.name.startswith(".")
    )


def _is_transparent(picture: Any) -> bool:
    alpha = picture.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    return alpha or "transparency" in picture.info


def _upright(picture: Any) -> Any:
    from PIL import ImageOps

    if picture.getexif().get(ORIENTATION, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _check_colour(name: str) -> None:
    try:
        from PIL import ImageColor
    except ImportError:  # the first picture is refused with the way to install it
        return
    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(
            f"background: expected the name of a colour or #rrggbb, got '{name}'"
        ) from None
