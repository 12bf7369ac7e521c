"""The image classification data sets of torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instil.core import closest
from instil.data.images import ArrayData, ImageData, LazyData
from instil.data.pictures import Size, pictures
from instil.data.sources.npz import channels_first
from instil.data.splits import Splits, splits

PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "train": {"train": {"train": True}, "test": {"train": False}},
    "split": {
        "train": {"split": "train"},
        "validation": {"split": "val"},
        "test": {"split": "test"},
    },
}


def torchvision(
    dataset: str,
    root: str = "data",
    download: bool = False,
    options: dict[str, Any] | None = None,
    size: Size = None,
    channels: int | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    base: Path = Path(),
) -> Splits:
    """``torchvision.datasets.<dataset>`` in the folder ``root``, with further ``options`` of its own; downloads nothing unless ``download``.

    Its train and test parts are taken as they are; shares ``validation`` and ``test`` of train are held out where it has none. ``size`` and
    ``channels`` are as for a folder, for data sets of files.

    Raises ValueError for an unknown data set or option, and where the files are not there.
    """
    create = _class(dataset)
    known = inspect.signature(create).parameters
    given = {"root": str(Path(base) / root), "download": download}
    common = {key: value for key, value in given.items() if key in known} | (options or {})
    for name in common:
        if name not in known and not any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()
        ):
            raise ValueError(
                f"torchvision.datasets.{dataset} has no option '{name}'; {closest(name, known)}"
            )
    which = next((key for key in ("train", "split") if key in known and key not in common), "")
    wanted: dict[str, dict[str, Any]] = PARTS[which] if which else {"train": {}}
    found = {name: _made(dataset, create, common | choice, name) for name, choice in wanted.items()}
    parts = {name: _data(part, size, channels) for name, part in found.items() if part is not None}
    return splits(parts, validation, test)


def _class(name: str) -> Callable[..., Any]:
    try:
        from torchvision import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            'torchvision data need the package torchvision: pip install "instil[vision]"'
        ) from error
    if name not in datasets.__all__:
        raise ValueError(f"torchvision.datasets has no '{name}'; {closest(name, datasets.__all__)}")
    return getattr(datasets, name)  # type: ignore[no-any-return]


def _made(dataset: str, create: Callable[..., Any], options: dict[str, Any], part: str) -> Any:
    try:
        return create(**options)
    except RuntimeError as error:
        raise ValueError(
            f"torchvision.datasets.{dataset} is not in {options.get('root')}: {error}; put it there or set download: true"
        ) from error
    except ValueError:
        if part == "validation":
            return None  # it has no such split
        raise


@dataclass(frozen=True)
class _First:
    """The picture of a (picture, label) pair."""

    dataset: Any

    def __call__(self, row: int) -> Any:
        return self.dataset[row][0]


def _data(dataset: Any, size: Size, channels: int | None) -> ImageData:
    label = _labels(dataset)
    classes = [
        str(name) for name in getattr(dataset, "classes", None) or range(int(label.max()) + 1)
    ]
    pixels = getattr(dataset, "data", None)
    if (
        isinstance(pixels, (np.ndarray, Tensor))
        and pixels.ndim in (3, 4)
        and len(pixels) == len(label)
        and size is None
        and channels is None
    ):
        return ArrayData(channels_first(pixels), label, classes)
    return LazyData(pictures(_First(dataset), channels, size), label, classes)


def _labels(dataset: Any) -> Tensor:
    held = next(
        (
            getattr(dataset, name)
            for name in ("targets", "labels", "_labels", "_targets")
            if hasattr(dataset, name)
        ),
        None,
    )
    label = torch.as_tensor(
        [dataset[row][1] for row in range(len(dataset))] if held is None else held
    )
    if label.ndim != 1 or label.is_floating_point():
        raise ValueError(
            f"torchvision.datasets.{type(dataset).__name__} has no single class an image (labels of shape {tuple(label.shape)})"
        )
    return label
