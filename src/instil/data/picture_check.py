"""Check of picture files before training."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from typing_extensions import Doc

from instil.files.atomic import atomic
from instil.files.cache import cache_folder

BrokenOption = Annotated[
    Literal["error", "skip"],
    Doc("unreadable files: error, stop with their names; skip, leave them out with a note"),
]
NUM_HEADERS = 10_000
"""Largest number of files whose size is read before training, in about a second."""
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
"""Tag of the orientation in EXIF, and its values for a picture that lies on its side."""
NUM_NAMED = 3
"""Largest number of files in a message."""


def broken_pictures(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Read every file once, in threads, and return those that cannot be read.

    Good files are cached and read again only after a change. JPEG files are decoded at an eighth of
    their size, which detects missing data equally well.

    Args:
        paths: picture files.
        root: folder of the data, the key of the cache.

    Returns:
        Reason by file.
    """
    cache = _cache_file(root)
    good = _read_good(cache)
    states = {path: _state(path) for path in paths}
    unknown = [path for path in states if good.get(str(path)) != states[path]]
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads:
        reasons = dict(zip(unknown, threads.map(_reason, unknown), strict=True))
    broken = {path: reason for path, reason in reasons.items() if reason is not None}
    if unknown:
        states_of_good = {str(path): state for path, state in states.items() if path not in broken}
        # A cache that cannot be written only makes the next check slower.
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic(cache) as temporary:
                temporary.write_text(json.dumps(states_of_good), encoding="utf-8")
    return broken


def readable_pictures(
    paths: Sequence[Path], root: Path, on_broken: str
) -> tuple[set[Path], tuple[str, ...]]:
    """Return the files that can be read, and notes about the others.

    Args:
        paths: picture files.
        root: folder of the data.
        on_broken: ``error`` or ``skip``.

    Raises:
        ValueError: for ``error``, if a file cannot be read.
    """
    broken = broken_pictures(paths, root)
    if broken and on_broken == "error":
        raise ValueError(_broken_message(broken))
    return set(paths) - broken.keys(), (_skipped_note(broken),) if broken else ()


def check_one_size(paths: Sequence[Path], size: tuple[int, int] | None) -> None:
    """Check that pictures that are not resized have one size, by the headers of their files.

    Args:
        paths: picture files. Of a longer list, ``NUM_HEADERS`` files are read.
        size: (height, width) of resized pictures, or None for the size of each picture.

    Raises:
        ValueError: for two sizes, with a file of each.
    """
    if size is not None:
        return
    step = max(1, -(-len(paths) // NUM_HEADERS))
    example_of_size: dict[tuple[int, int], Path] = {}
    for path in paths[::step]:
        example_of_size.setdefault(picture_size(path), path)
    if len(example_of_size) == 1:
        return
    # The orientation may need the whole file.
    examples = {picture_size(path, is_upright=True): path for path in example_of_size.values()}
    if len(examples) > 1:
        names = [f"{path} has {width} x {height}" for (width, height), path in examples.items()]
        raise ValueError(
            "size: the pictures differ in size. Expected one size, or data.size to resize them, "
            f"got {' and '.join(names[:2])} pixels"
        )


def picture_size(path: Path, is_upright: bool = False) -> tuple[int, int]:
    """Return width and height of a picture.

    Args:
        path: file of the picture.
        is_upright: whether its orientation turns it; else they are those of the header.
    """
    from PIL import Image

    with Image.open(path) as picture:
        width, height = picture.size
        is_turned = is_upright and picture.getexif().get(ORIENTATION) in QUARTER_TURNS
        return (height, width) if is_turned else (width, height)


def _broken_message(broken: dict[Path, str]) -> str:
    lines = [f"{path} cannot be read as a picture: {broken[path]}" for path in broken][:NUM_NAMED]
    num_more = len(broken) - len(lines)
    others = f"; and {num_more} more" if num_more else ""
    return f"{'; '.join(lines)}{others}. Remove them, or leave them out with data.broken=skip"


def _skipped_note(broken: dict[Path, str]) -> str:
    """Note about files that are left out."""
    names = ", ".join(str(path) for path in list(broken)[:NUM_NAMED])
    more = ", ..." if len(broken) > NUM_NAMED else ""
    subject = "1 broken picture is" if len(broken) == 1 else f"{len(broken)} broken pictures are"
    return f"{subject} left out: {names}{more}"


def _reason(path: Path) -> str | None:
    """Reason why a file cannot be read; None for a good file."""
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
            return None
        with Image.open(path) as picture:
            picture.draft(None, (max(1, picture.width // 8), max(1, picture.height // 8)))
            picture.load()
    # Plugins of Pillow raise any exception for a damaged file.
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _cache_file(root: Path) -> Path:
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "pictures" / f"{name}.json"


def _read_good(cache: Path) -> dict[str, list[int]]:
    """Size and modification time of good files, by path; empty if the cache is unreadable."""
    try:
        good = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return good if isinstance(good, dict) else {}
