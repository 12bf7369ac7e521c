"""Image data sets of the Hugging Face hub, or saved on disk by ``datasets``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, closest
from instil.data.images import ImageData, LazyData
from instil.data.pictures import Size, pictures
from instil.data.splits import Splits, splits

NAMES = {
    "train": ("train",),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
LABELS = ("label", "labels", "fine_label", "target")


def huggingface(
    path: str,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: Size = None,
    channels: int | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    base: Path = Path(),
) -> Splits:
    """``datasets.load_dataset(path, config)``, or what ``save_to_disk`` left in the folder ``path``.

    The columns ``image`` and ``label`` are found by their types unless they are named; a list of labels makes the data multi-label. ``size``,
    ``channels``, ``validation`` and ``test`` are as for a folder.

    Raises ValueError where the data set cannot be loaded, or no column, or several, could be the one.
    """
    loaded = _loaded(path, config, Path(base))
    sets = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    found = {
        name: sets[entry] for name, entries in NAMES.items() for entry in entries if entry in sets
    }
    if "train" not in found:
        raise ValueError(f"'{path}' has no train split, only {', '.join(map(str, sets))}")
    features = found["train"].features
    columns = image or _image_column(features), label or _label_column(features)
    for column in columns:
        if column not in features:
            raise ValueError(f"'{path}' has no column '{column}'; {closest(column, features)}")
    return splits(
        {name: _data(part, *columns, size, channels) for name, part in found.items()},
        validation,
        test,
    )


def _loaded(path: str, config: str | None, base: Path) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            'Hugging Face data need the package datasets: pip install "instil[vision]"'
        ) from error
    local = base / path
    try:
        return (
            datasets.load_from_disk(str(local))
            if local.is_dir()
            else datasets.load_dataset(path, config)
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"'{path}' is no data set in {base.resolve()}, and could not be had from the hub: {error}"
        ) from error


def _image_column(features: Mapping[str, Any]) -> str:
    return _only(
        [name for name, feature in features.items() if type(feature).__name__ == "Image"],
        "image",
        features,
        (),
    )


def _label_column(features: Mapping[str, Any]) -> str:
    found = [name for name, feature in features.items() if _names(feature)]
    return _only(found or [name for name in LABELS if name in features], "label", features, LABELS)


def _only(
    found: list[str], what: str, features: Mapping[str, Any], preferred: tuple[str, ...]
) -> str:
    if len(found) > 1:
        found = [name for name in preferred if name in found][:1] or found
    if len(found) != 1:
        count = (
            f"several columns could be the {what} ({', '.join(found)})"
            if found
            else f"no column is the {what}"
        )
        raise ValueError(f"{count}; name it with `{what}`; the columns are {', '.join(features)}")
    return found[0]


def _names(feature: Any) -> list[str]:
    """Class names of a column of classes, or of lists of classes."""
    return list(
        getattr(feature, "names", None)
        or getattr(getattr(feature, "feature", None), "names", None)
        or ()
    )


@dataclass(frozen=True)
class _Column:
    """The pictures of one column."""

    dataset: Any
    column: str

    def __call__(self, row: int) -> Any:
        return self.dataset[row][self.column]


def _data(dataset: Any, image: str, label: str, size: Size, channels: int | None) -> ImageData:
    names, values = _names(dataset.features[label]), dataset[label][:]
    if values and isinstance(values[0], list):
        return LazyData(
            pictures(_Column(dataset, image), channels, size), _many_hot(values, len(names)), names
        )
    target = torch.tensor(values)
    classes = names or [str(number) for number in range(int(target.max()) + 1)]
    target = torch.where(
        target < 0, UNLABELLED, target
    )  # datasets writes -1 where a test set keeps its labels back
    return LazyData(pictures(_Column(dataset, image), channels, size), target, classes)


def _many_hot(values: list[list[int]], count: int) -> Tensor:
    label = torch.zeros(len(values), count)
    for row, classes in enumerate(values):
        label[row, classes] = 1
    return label
