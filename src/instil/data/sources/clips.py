"""Source ``clips``: video files in one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.data.class_folders import check_classes, class_names, split_directories
from instil.data.clip_files import clip_files, read_clip
from instil.data.paths import located
from instil.data.samples import Samples, TensorData
from instil.data.splits import Splits, TestOption, ValidationOption, splits


class EncodedVideos(TensorData):
    """Videos in memory as uint8, which are scaled to [0, 1] when they are read."""

    noun = "video"

    def inputs(self, rows: Tensor) -> Batch:
        return {"video": self.tensors["video"].index_select(0, rows).float().div_(255)}

    def _take(self, rows: Tensor) -> None:
        self.tensors = {"video": self.tensors["video"].index_select(0, rows)}


def clips(
    path: Annotated[str, Doc("folder, relative to the recipe or to the working directory")],
    frames: Annotated[int, Ge(2), Doc("number of frames of each clip, evenly spaced in time")] = 16,
    size: Annotated[
        int | list[int], Doc("height and width of the frames in pixels, or one number for both")
    ] = 112,
    channels: Annotated[Literal[1, 3], Doc("1 (grey) or 3 (colour)")] = 3,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Clips in one folder per class, in memory: ``video`` (N, C, T, H, W).

    Paths are ``PATH/class/clip.mp4``, or ``PATH/train/class/clip.mp4`` with the folders
    ``validation`` (or ``val``) and ``test`` next to ``train``. A clip is an animated picture (GIF,
    WebP, PNG), a folder of frames, or a video file, which needs the package ``av``. Frames of a
    folder have the order of the numbers in their names (9 before 10).

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing or empty folder, unreadable clips, and clips with fewer frames.
    """
    root = located(path, base)
    if not root.is_dir():
        raise ValueError(f"path: {root} is a file, not a folder. Expected a folder of clips")
    directories = split_directories(root)
    names = class_names(directories["train"])
    if not names:
        raise ValueError(
            f"path: {directories['train'].resolve()} has no folders. Expected one folder per "
            "class, with its clips"
        )
    height, width = (size, size) if isinstance(size, int) else size
    form = (frames, (height, width), channels == 1)
    parts: dict[str, Samples] = {
        part: _samples(directory, names, form) for part, directory in directories.items()
    }
    return splits(parts, validation, test)


def _samples(
    directory: Path, names: Sequence[str], form: tuple[int, tuple[int, int], bool]
) -> EncodedVideos:
    videos = []
    label = []
    check_classes(directory, names)
    for index, name in enumerate(names):
        folder = directory / name
        files = clip_files(folder) if folder.is_dir() else []
        if not files:
            raise ValueError(f"path: the class folder {folder} has no clips")
        videos += [read_clip(file, *form) for file in files]
        label += [index] * len(files)
    frames, size, is_grey = form
    facts = {
        "channels": 1 if is_grey else 3,
        "frames": frames,
        "size": size[0] if size[0] == size[1] else size,
    }
    video = torch.from_numpy(np.stack(videos))
    return EncodedVideos({"video": video}, torch.tensor(label), names, facts)
