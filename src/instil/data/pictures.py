"""Pictures that are decoded on demand and converted to one mode and size."""

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
    Doc("height and width of resized pictures, in pixels, or one number for both; null: no resize"),
]
ChannelsOption = Annotated[
    int | None,
    Doc("1 (grey), 3 (colour) or 4 (colour and alpha); null: 1 or 3, as in the first picture"),
]
BackgroundOption = Annotated[
    str,
    Doc("colour behind transparent pixels, a name or #rrggbb; 4 channels keep the transparency"),
]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of Pillow with more than 8 bits per pixel; all of them are grey."""
ORIENTATION = 0x0112
"""EXIF tag."""


@dataclass(frozen=True)
class Pictures:
    """Reader of picture ``row`` in one mode and size.

    16-bit pictures are scaled to [0, 1] by 65535, and floating-point ones are in [0, 1] already.
    Pictures with an EXIF orientation are turned upright.

    Args:
        open: function from a row to a Pillow picture.
        mode: ``L``, ``RGB`` or ``RGBA``.
        size: (height, width), or None for the size of each picture.
        background: colour behind transparent pixels if the mode has no alpha.
    """

    open: Callable[[int], Any]
    mode: str
    size: tuple[int, int] | None = None
    background: str = "white"

    def __call__(self, row: int) -> Any:
        """Return a Pillow picture; for deep ones float32 (H, W) or (H, W, C) in [0, 1]."""
        picture = self.open(row)
        try:
            picture = upright(picture)
            if picture.mode in DEEP_MODES:
                return self._deep(picture)
            return self._resized(self._in_mode(picture))
        # Decoders and conversions of Pillow raise any exception.
        except Exception as error:
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

        background = Image.new("RGBA", picture.size, self.background)
        return Image.alpha_composite(background, picture).convert(self.mode)

    def _deep(self, picture: Any) -> NDArray[np.float32]:
        """Grey values in [0, 1], repeated for each channel; alpha is opaque."""
        from PIL import Image

        values = np.asarray(picture, dtype=np.float32)
        if picture.mode != "F":
            values = values / np.float32(65535)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"its values go from {values.min():g} to {values.max():g} (mode {picture.mode}). "
                "Expected 8 or 16 bits per pixel, or floating-point values in [0, 1]"
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
    """Return a reader of pictures with the options of a data source.

    Args:
        open: function from a row to a Pillow picture.
        channels: 1, 3 or 4; None for 1 or 3, as in the first picture.
        size: one number for both, or height and width; None for the size of each picture.
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
    return Pictures(open, MODES[channels], _height_and_width(size), background)


def _height_and_width(size: Size) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size: Expected at least 1 pixel, got {size}")
    return height, width


@dataclass(frozen=True)
class Files:
    """Function that opens a picture file by its row.

    Args:
        paths: picture files.
    """

    paths: tuple[Path, ...]

    def __call__(self, row: int) -> Any:
        from PIL import Image

        try:
            with Image.open(self.paths[row]) as picture:
                picture.load()
                return picture
        # Plugins of Pillow raise any exception for a damaged file.
        except Exception as error:
            raise ValueError(f"{self.paths[row]} cannot be read as a picture: {error}") from error


def picture_name(open: Callable[[int], Any], row: int) -> str:
    """Return the file of a picture, or its row if it has no file."""
    return str(open.paths[row]) if isinstance(open, Files) else f"picture {row}"


def check_picture_size(
    name: str,
    size: tuple[int, ...],
    expected: tuple[float, float] | None,
    other: str = "its annotations",
) -> None:
    """Check that a picture has the size of its annotations, or a mask that of its picture.

    Args:
        name: name of the picture, for the message.
        size: width and height.
        expected: width and height in the annotations; None if they are unknown.
        other: name of what has the expected size.

    Raises:
        ValueError: for another size.
    """
    if expected is not None and tuple(expected) != tuple(size):
        raise ValueError(
            f"{name}: {size[0]} x {size[1]} pixels. Expected {expected[0]:g} x {expected[1]:g}, as "
            f"in {other}"
        )


def extensions() -> set[str]:
    """Return the file extensions of pictures that Pillow reads.

    Raises:
        ValueError: if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            'picture files need the package pillow. Install it with pip install "instil[vision]"'
        ) from error
    formats = Image.registered_extensions()
    return {extension for extension, name in formats.items() if name in Image.OPEN}


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder and its subfolders, by their extension, sorted."""
    suffixes = extensions()
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes and not file.name.startswith(".")
    )


def _is_transparent(picture: Any) -> bool:
    alpha = picture.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    return alpha or "transparency" in picture.info


def upright(picture: Any) -> Any:
    """Return a picture, rotated and mirrored by its EXIF orientation."""
    from PIL import ImageOps

    if picture.getexif().get(ORIENTATION, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _check_colour(name: str) -> None:
    try:
        from PIL import ImageColor
    # The first picture is refused later, with the command that installs Pillow.
    except ImportError:
        return
    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(
            f"background: expected the name of a colour or #rrggbb, got '{name}'"
        ) from None
