"""Source ``webdataset``: tar files of samples, read while training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from instil.data.column_samples import ClassesOption, LabelsOption
from instil.data.pictures import SizeOption
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.stream_splits import stream_splits
from instil.data.streams import BufferOption, Stream
from instil.data.tables import Files
from instil.data.tar_shards import ReadTar, tar_files


def webdataset(
    path: Annotated[
        Files,
        Doc("tar files (`shards/{000..003}.tar` or `shards/*.tar`), or tar files by split"),
    ],
    columns: Annotated[
        dict[str, str], Doc("file extension of each batch key, such as `{image: jpg, label: cls}`")
    ],
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    shuffle_buffer: BufferOption = 1000,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Samples in tar files in the format of webdataset; each tar file is a shard.

    A sample is the files with the same name and different extensions. Extensions are those of
    pictures (jpg, png, ...), ``cls`` (a number), ``txt`` (a text), ``json`` and ``npy``;
    ``jpg;png`` is the first one that a sample has. A sample without the extension of ``label`` has
    no label.

    The training data have no length: set ``train.steps``. ``classes`` is needed for labels that
    are classes. ``validation`` and ``test`` are numbers of samples, taken from the start of these
    splits or else of the training split, and held in memory.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: without the package webdataset, for a file that cannot be read, and wrong
            values.
    """
    streams = {}
    for split, files in tar_files(path, base).items():
        fingerprint = repr([(file.name, file.stat().st_size) for file in files])
        streams[split] = Stream(
            ReadTar(files, columns),
            len(files),
            classes,
            labels,
            size,
            task_name,
            shuffle_buffer,
            fingerprint,
        )
    return stream_splits(streams, validation, test)
