"""Source ``huggingface``: image data sets of the Hugging Face hub, or saved by ``datasets``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.column_samples import LabelKind
from instil.data.images import ImageData, LazyData
from instil.data.pictures import ChannelsOption, Size, SizeOption, pictures
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.tables import table_splits

NAMES = {
    "train": ("train",),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
"""Names of each split in a data set; the last one that exists is used."""
LABELS = ("label", "labels", "fine_label", "target")
"""Names of label columns, in order of preference."""


def huggingface(
    path: Annotated[
        str, Doc("name of a data set on the hub, or a folder that `save_to_disk` wrote")
    ],
    config: Annotated[
        str | None, Doc("configuration of the data set on the hub; null: the default")
    ] = None,
    image: Annotated[
        str | None, Doc("column of the images; null: the column of type Image")
    ] = None,
    label: Annotated[
        str | None,
        Doc("column of the labels, or of lists of labels; null: found by its type and name"),
    ] = None,
    columns: Annotated[
        dict[str, str] | None,
        Doc("column of each batch key, such as `{audio: wave}`; null: image and label"),
    ] = None,
    labels: Annotated[
        LabelKind | None, Doc("with columns, kind of the labels; null: found by their type")
    ] = None,
    size: SizeOption = None,
    channels: ChannelsOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Images of ``datasets.load_dataset(path, config)``, or of a folder on disk.

    A column of lists of labels makes the data multi-label. Images are decoded when they are read.

    With ``columns``, the columns are any inputs, as for the source ``parquet``, and are read into
    memory.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if the data set cannot be loaded, or a column is missing or ambiguous.
    """
    loaded = _load(path, config, Path(base))
    sets = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    parts = {}
    for name, entries in NAMES.items():
        for entry in entries:
            if entry in sets:
                parts[name] = sets[entry]
    if "train" not in parts:
        raise ValueError(f"'{path}' has no train split, only {', '.join(map(str, sets))}")
    features = parts["train"].features
    if columns is not None:
        return _mapped(parts, path, columns, labels, size, (validation, test), task_name)
    pair = (image or _image_column(features), label or _label_column(features))
    for column in pair:
        if column not in features:
            raise ValueError(f"'{path}' has no column '{column}'.{suggestion(column, features)}")
    data = {name: _data(part, *pair, size, channels) for name, part in parts.items()}
    return splits(data, validation, test)


def _mapped(
    parts: Mapping[str, Any],
    path: str,
    columns: Mapping[str, str],
    labels: LabelKind | None,
    size: Size,
    shares: tuple[float, float],
    task_name: str,
) -> Splits:
    """Samples whose batch keys are any columns."""
    features = parts["train"].features
    classes = _class_names(features.get(columns.get("label"))) or None

    def read(split: Path, names: list[str]) -> dict[str, Any]:
        return {name: list(parts[split.name][name][:]) for name in names}

    for name in columns.values():
        if name not in features:
            raise ValueError(f"'{path}' has no column '{name}'.{suggestion(name, features)}")
    paths = {split: [Path(path) / split] for split in parts}
    return table_splits(paths, read, columns, classes, labels, size, shares, task_name)


def _load(path: str, config: str | None, base: Path) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            "huggingface: the package datasets is not installed. "
            'Install it with pip install "instil[vision]"'
        ) from error
    local = base / path
    try:
        if local.is_dir():
            return datasets.load_from_disk(str(local))
        return datasets.load_dataset(path, config)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"path: '{path}' is not a data set in {base.resolve()} and cannot be loaded from the "
            f"hub: {error}"
        ) from error


def _image_column(features: Mapping[str, Any]) -> str:
    columns = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    return _only_column(columns, "image", features, ())


def _label_column(features: Mapping[str, Any]) -> str:
    columns = [name for name, feature in features.items() if _class_names(feature)]
    columns = columns or [name for name in LABELS if name in features]
    return _only_column(columns, "label", features, LABELS)


def _only_column(
    columns: list[str], option: str, features: Mapping[str, Any], preferred: tuple[str, ...]
) -> str:
    """The only candidate, or the first preferred one of several."""
    if len(columns) > 1:
        columns = [name for name in preferred if name in columns][:1] or columns
    if len(columns) == 1:
        return columns[0]
    problem = f"no column is the {option}"
    if columns:
        problem = f"several columns could be the {option} ({', '.join(columns)})"
    raise ValueError(
        f"{option}: {problem}. Name the column with `{option}`; the columns are "
        f"{', '.join(features)}"
    )


def _class_names(feature: Any) -> list[str]:
    """Class names of a column of classes, or of lists of classes."""
    of_items = getattr(getattr(feature, "feature", None), "names", None)
    return list(getattr(feature, "names", None) or of_items or ())


@dataclass(frozen=True)
class _Column:
    """Pictures of one column, by row."""

    dataset: Any
    column: str

    def __call__(self, row: int) -> Any:
        return self.dataset[row][self.column]


def _data(dataset: Any, image: str, label: str, size: Size, channels: int | None) -> ImageData:
    names = _class_names(dataset.features[label])
    values = dataset[label][:]
    reader = pictures(_Column(dataset, image), channels, size)
    if values and isinstance(values[0], list):
        return LazyData(reader, _many_hot(values, len(names)), names)
    target = torch.tensor(values)
    classes = names or [str(index) for index in range(int(target.max()) + 1)]
    # Test sets whose labels are not public have -1.
    target = torch.where(target < 0, UNLABELLED, target)
    return LazyData(reader, target, classes)


def _many_hot(values: list[list[int]], num_classes: int) -> Tensor:
    label = torch.zeros(len(values), num_classes)
    for row, classes in enumerate(values):
        label[row, classes] = 1
    return label
