"""Streams of data sets that ``datasets`` reads shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.column_samples import LabelKind
from instil.data.huggingface_columns import class_names
from instil.data.pictures import Size
from instil.data.streams import Row, Stream

MAX_SHARDS = 16
"""Number of parts of a data set that ``save_to_disk`` wrote, which has no shards of its own."""
SAVED_FILES = ("dataset_dict.json", "state.json")


def load_streams(datasets: Any, path: str, config: str | None, base: Path) -> Any:
    """Load a data set, or its splits, as iterable data sets.

    Args:
        datasets: the package.
        path: a name on the hub, a folder of ``save_to_disk``, or a folder of files such as Parquet
            or JSON Lines.
        config: configuration of the data set on the hub.
        base: folder that relative paths start from.
    """
    local = base / path
    if not any((local / name).exists() for name in SAVED_FILES):
        name = str(local) if local.is_dir() else path
        return datasets.load_dataset(name, config, streaming=True)
    loaded = datasets.load_from_disk(str(local))
    if not isinstance(loaded, Mapping):
        return _iterable(loaded)
    return {name: _iterable(part) for name, part in loaded.items()}


def _iterable(dataset: Any) -> Any:
    return dataset.to_iterable_dataset(num_shards=max(1, min(MAX_SHARDS, len(dataset))))


def stream_features(dataset: Any) -> dict[str, Any]:
    """Return the features of an iterable data set; those of a file without types are None."""
    if dataset.features is not None:
        return dict(dataset.features)
    return dict.fromkeys(next(iter(dataset), {}))


def folder_fingerprint(folder: Path) -> str:
    """Return names and sizes of the files of a folder; empty if there is none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return repr([(str(path.relative_to(folder)), path.stat().st_size) for path in files])


@dataclass(frozen=True)
class ReadDataset:
    """Reader of one shard of an iterable data set, for ``Stream``.

    Args:
        dataset: data set of ``datasets``.
        columns: column of each batch key.
        has_class_labels: whether the labels are classes, for which -1 is a missing label.
    """

    dataset: Any
    columns: Mapping[str, str]
    has_class_labels: bool = False

    def __call__(self, shard: int) -> Iterator[Row]:
        """Yield the samples of a shard as dicts by batch key."""
        names = list(dict.fromkeys(self.columns.values()))
        part = self.dataset.select_columns(names)
        for row in part.shard(num_shards=self.dataset.num_shards, index=shard):
            values = {key: row.get(name) for key, name in self.columns.items()}
            label = values.get("label")
            if self.has_class_labels and isinstance(label, int) and label < 0:
                values["label"] = None
            yield values


@dataclass(frozen=True)
class StreamSettings:
    """Options of a ``Stream`` that all splits share."""

    size: Size
    task_name: str
    shuffle_buffer: int
    fingerprint: str


def dataset_stream(
    dataset: Any,
    columns: Mapping[str, str],
    classes: list[str] | None,
    labels: LabelKind | None,
    settings: StreamSettings,
) -> Stream:
    """Return the stream of an iterable data set.

    Args:
        dataset: data set of ``datasets``.
        columns: column of each batch key.
        classes: names of the classes; None: those of the label column.
        labels: kind of the labels; None: found by their type.
        settings: further options.
    """
    feature = stream_features(dataset).get(columns.get("label", ""))
    names = class_names(feature)
    # A column of lists of classes has the names at its items.
    if labels is None and names and not hasattr(feature, "names"):
        labels = "multi"
    return Stream(
        ReadDataset(dataset, columns, has_class_labels=bool(names)),
        dataset.num_shards,
        classes or names or None,
        labels,
        settings.size,
        settings.task_name,
        settings.shuffle_buffer,
        settings.fingerprint,
    )
