"""Reading of clips: video files, animated pictures and folders of frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.pictures import DEEP_MODES, upright

ANIMATED = (".gif", ".webp", ".apng", ".png")
"""Extensions of animated pictures, which are read with Pillow."""
VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v")
"""Extensions of video files, which are read with PyAV."""
FRAMES = (".jpg", ".jpeg", ".png", ".bmp")
"""Extensions of the frames in a folder."""


def clip_files(folder: Path) -> list[Path]:
    """Return the clips of a class folder, sorted: files, and subfolders with frames.

    Args:
        folder: folder of a class.
    """
    extensions = (*ANIMATED, *VIDEO)
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in extensions)
    )


def read_clip(path: Path, frames: int, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    """Read evenly spaced frames of a clip.

    Args:
        path: video file, animated picture, or folder whose pictures are the frames.
        frames: number of frames.
        size: height and width of the result.
        grey: whether the result has one channel instead of three.

    Returns:
        uint8 (C, frames, H, W).

    Raises:
        ValueError: for a file that cannot be read, and a clip with fewer frames.
    """
    try:
        pictures = _pictures(path)
        # The middle of equal parts of the clip, as in the section input of a network.
        indices = [(2 * index + 1) * len(pictures) // (2 * frames) for index in range(frames)]
        if len(pictures) >= frames:
            return np.stack([_array(pictures[index], size, grey) for index in indices], 1)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: the clip cannot be read: {error}") from error
    raise ValueError(
        f"{path}: too few frames. Expected at least frames: {frames}, got {len(pictures)}. "
        "Decrease frames, or remove the clip"
    )


def _pictures(path: Path) -> Sequence[Any]:
    """All frames as images of Pillow, or as paths of pictures."""
    from PIL import Image, ImageSequence

    if path.is_dir():
        frames = [file for file in path.iterdir() if file.suffix.lower() in FRAMES]
        # Hidden files, such as ._1.jpg of macOS, are no pictures.
        return sorted((file for file in frames if not file.name.startswith(".")), key=_numbers)
    if path.suffix.lower() in ANIMATED:
        with Image.open(path) as picture:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    return _decoded(path)


def _numbers(path: Path) -> list[str | int]:
    """Texts and numbers of a file name, in turn: frame 10 comes after frame 9."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdecimal() else part for part in parts]


def _decoded(path: Path) -> Sequence[Any]:
    """Frames of a video file."""
    try:
        import av  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ValueError(
            f"files {path.suffix} need the package av. Install it with: pip install instil[video]"
        ) from error
    try:
        with av.open(str(path)) as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    except IndexError as error:
        raise ValueError("the file has no video stream") from error


def _array(picture: Any, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    """A frame as uint8 (C, H, W)."""
    from PIL import Image

    if isinstance(picture, Path):
        with Image.open(picture) as opened:
            # Pillow would cut values of 16 bits to 255.
            if opened.mode in DEEP_MODES:
                raise ValueError(f"{picture.name} has 16 or more bits per pixel. Expected 8")
            return _array(upright(opened).copy(), size, grey)
    height, width = size
    array: NDArray[np.uint8] = np.array(
        picture.convert("L" if grey else "RGB").resize((width, height))
    )
    return array[None] if grey else np.moveaxis(array, -1, 0)
