"""Source ``torchvision``: the image classification data sets of torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.cards.closest import unknown_option
from instil.data.images import ArrayData, ImageData, LazyData
from instil.data.pictures import ChannelsOption, Size, SizeOption, pictures
from instil.data.sources.npz import channels_first
from instil.data.splits import Splits, TestOption, ValidationOption, splits

PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "train": {"train": {"train": True}, "test": {"train": False}},
    "split": {
        "train": {"split": "train"},
        "validation": {"split": "val"},
        "test": {"split": "test"},
    },
}
"""Arguments that select each split, by the parameter that a data set has for it."""
LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "_targets")


def torchvision(
    dataset: Annotated[str, Doc("name of a class in `torchvision.datasets`, such as CIFAR10")],
    root: Annotated[str, Doc("folder of the data set, relative to the recipe")] = "data",
    download: Annotated[bool, Doc("download the data set if it is missing")] = False,
    options: Annotated[
        dict[str, Any] | None, Doc("further arguments of the class in `torchvision.datasets`")
    ] = None,
    size: SizeOption = None,
    channels: ChannelsOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Images of ``torchvision.datasets.<dataset>``, for classification.

    The train and test splits of the data set are used as they are. ``size`` and ``channels`` also
    apply to data sets in memory, whose images are then converted one by one.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for an unknown data set or option, missing files, and labels other than one
            class per image.
    """
    create = _dataset_class(dataset)
    parameters = inspect.signature(create).parameters
    defaults = {"root": str(Path(base) / root), "download": download}
    common = {key: value for key, value in defaults.items() if key in parameters} | (options or {})
    _check_options(dataset, common, parameters)
    selectors = [key for key in ("train", "split") if key in parameters and key not in common]
    selections: dict[str, dict[str, Any]] = PARTS[selectors[0]] if selectors else {"train": {}}
    parts = {}
    for name, selection in selections.items():
        part = _create(dataset, create, common | selection, name)
        if part is not None:
            parts[name] = part
    data = {name: _data(part, size, channels) for name, part in parts.items()}
    return splits(data, validation, test)


def _dataset_class(name: str) -> Callable[..., Any]:
    try:
        from torchvision import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            "torchvision: the package torchvision is not installed. "
            'Install it with pip install "instil[vision]"'
        ) from error
    if name not in datasets.__all__:
        raise ValueError(
            f"dataset: torchvision.datasets has no '{name}'.{suggestion(name, datasets.__all__)}"
        )
    return getattr(datasets, name)  # type: ignore[no-any-return]


def _check_options(
    dataset: str, options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            owner = f"torchvision.datasets.{dataset}"
            raise ValueError(f"options.{name}: {unknown_option(name, owner, parameters)}")


def _create(dataset: str, create: Callable[..., Any], options: dict[str, Any], part: str) -> Any:
    """One split of a data set; None for a validation split that does not exist."""
    try:
        return create(**options)
    except RuntimeError as error:
        raise ValueError(
            f"torchvision.datasets.{dataset} is not in {options.get('root')}: {error}. Copy the "
            "files there, or set download: true"
        ) from error
    except ValueError:
        if part == "validation":
            return None
        raise


@dataclass(frozen=True)
class _First:
    """Picture of the (picture, label) pair of a row."""

    dataset: Any

    def __call__(self, row: int) -> Any:
        return self.dataset[row][0]


def _data(dataset: Any, size: Size, channels: int | None) -> ImageData:
    label = _labels(dataset)
    names = getattr(dataset, "classes", None) or range(int(label.max()) + 1)
    classes = [str(name) for name in names]
    pixels: Any = getattr(dataset, "data", None)
    if size is None and channels is None and _are_images(pixels, len(label)):
        return ArrayData(channels_first(pixels), label, classes)
    return LazyData(pictures(_First(dataset), channels, size), label, classes)


def _are_images(pixels: Any, count: int) -> bool:
    """Whether ``pixels`` is an array of ``count`` images."""
    is_array = isinstance(pixels, (np.ndarray, Tensor))
    return is_array and pixels.ndim in (3, 4) and len(pixels) == count


def _labels(dataset: Any) -> Tensor:
    values = None
    for name in LABEL_ATTRIBUTES:
        if hasattr(dataset, name):
            values = getattr(dataset, name)
            break
    if values is None:
        values = [dataset[row][1] for row in range(len(dataset))]
    label = torch.as_tensor(values)
    if label.ndim != 1 or label.is_floating_point():
        raise ValueError(
            f"torchvision.datasets.{type(dataset).__name__}: labels have the shape "
            f"{tuple(label.shape)} and type {label.dtype}. Expected one class per image"
        )
    return label
