"""Source ``huggingface``: image data sets of the Hugging Face hub, or saved by ``datasets``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.column_samples import LabelKind
from instil.data.huggingface_columns import (
    check_column_names,
    class_names,
    image_column,
    label_column,
    named_parts,
)
from instil.data.huggingface_stream import (
    StreamSettings,
    dataset_stream,
    folder_fingerprint,
    load_streams,
    stream_features,
)
from instil.data.images import ImageData, LazyData
from instil.data.pictures import ChannelsOption, Size, SizeOption, pictures
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.stream_splits import stream_splits
from instil.data.streams import BufferOption
from instil.data.tables import table_splits

PathOption = Annotated[
    str,
    Doc(
        "name of a data set on the hub, or a folder that `save_to_disk` wrote; with streaming "
        "also a folder of Parquet or JSON Lines files"
    ),
]
ConfigOption = Annotated[
    str | None, Doc("configuration of the data set on the hub; null: the default")
]
ImageOption = Annotated[str | None, Doc("column of the images; null: the column of type Image")]
LabelOption = Annotated[
    str | None,
    Doc("column of the labels, or of lists of labels; null: found by its type and name"),
]
ColumnsOption = Annotated[
    dict[str, str] | None,
    Doc("column of each batch key, such as `{audio: wave}`; null: image and label"),
]
LabelsOption = Annotated[
    LabelKind | None, Doc("with columns, kind of the labels; null: found by their type")
]
ClassesOption = Annotated[
    list[str] | None, Doc("names of the classes; null: those of the label column")
]
StreamingOption = Annotated[
    bool, Doc("whether samples are read while training; validation and test are counts then")
]


def huggingface(
    path: PathOption,
    config: ConfigOption = None,
    image: ImageOption = None,
    label: LabelOption = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    streaming: StreamingOption = False,
    shuffle_buffer: BufferOption = 1000,
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

    With ``streaming``, the training data are read shard by shard and have no length. Set
    ``train.steps``. ``validation`` and ``test`` are numbers of samples, taken from the start of
    these splits or else of the training split, and held in memory.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if the data set cannot be loaded, or a column is missing or ambiguous.
    """
    loaded = _load(path, config, Path(base), streaming)
    parts = named_parts(loaded, path)
    features = stream_features(parts["train"]) if streaming else parts["train"].features
    pair = columns or {
        "image": image or image_column(features),
        "label": label or label_column(features),
    }
    check_column_names(pair, features, path)
    shares = (validation, test)
    if streaming and channels is not None:
        raise ValueError("channels: not available with streaming: true. Leave channels out")
    if streaming:
        fingerprint = repr((path, config, folder_fingerprint(Path(base) / path)))
        settings = StreamSettings(size, task_name, shuffle_buffer, fingerprint)
        return stream_splits(_streams(parts, pair, classes, labels, settings), *shares)
    if columns is not None:
        return _mapped(parts, path, columns, classes, labels, size, shares, task_name)
    data = {
        name: _data(part, pair["image"], pair["label"], classes, size, channels)
        for name, part in parts.items()
    }
    return splits(data, *shares)


def _streams(
    parts: Mapping[str, Any],
    columns: Mapping[str, str],
    classes: list[str] | None,
    labels: LabelKind | None,
    settings: StreamSettings,
) -> dict[str, Any]:
    """Streams of the splits by name."""
    return {
        name: dataset_stream(part, columns, classes, labels, settings)
        for name, part in parts.items()
    }


def _mapped(
    parts: Mapping[str, Any],
    path: str,
    columns: Mapping[str, str],
    classes: list[str] | None,
    labels: LabelKind | None,
    size: Size,
    shares: tuple[float, float],
    task_name: str,
) -> Splits:
    """Samples whose batch keys are any columns."""
    features = parts["train"].features
    classes = classes or class_names(features.get(columns.get("label"))) or None

    def read(split: Path, names: list[str]) -> dict[str, Any]:
        return {name: list(parts[split.name][name][:]) for name in names}

    paths = {split: [Path(path) / split] for split in parts}
    return table_splits(paths, read, columns, classes, labels, size, shares, task_name)


def _load(path: str, config: str | None, base: Path, streaming: bool) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            "huggingface: the package datasets is not installed. "
            'Install it with pip install "instil[vision]"'
        ) from error
    local = base / path
    try:
        if streaming:
            return load_streams(datasets, path, config, base)
        if local.is_dir():
            return datasets.load_from_disk(str(local))
        return datasets.load_dataset(path, config)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"path: '{path}' is not a data set in {base.resolve()} and cannot be loaded from the "
            f"hub: {error}"
        ) from error


@dataclass(frozen=True)
class _Column:
    """Pictures of one column, by row."""

    dataset: Any
    column: str

    def __call__(self, row: int) -> Any:
        return self.dataset[row][self.column]


def _data(
    dataset: Any,
    image: str,
    label: str,
    classes: list[str] | None,
    size: Size,
    channels: int | None,
) -> ImageData:
    names = classes or class_names(dataset.features[label])
    values = dataset[label][:]
    reader = pictures(_Column(dataset, image), channels, size)
    if values and isinstance(values[0], list):
        return LazyData(reader, _many_hot(values, len(names)), names)
    target = torch.tensor(values)
    name_of_class = names or [str(index) for index in range(int(target.max()) + 1)]
    # Test sets whose labels are not public have -1.
    target = torch.where(target < 0, UNLABELLED, target)
    return LazyData(reader, target, name_of_class)


def _many_hot(values: list[list[int]], num_classes: int) -> Tensor:
    label = torch.zeros(len(values), num_classes)
    for row, classes in enumerate(values):
        label[row, classes] = 1
    return label
