"""Keys of samples: names by which files of another program refer to them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from instil.data.images import LazyData
from instil.data.pictures import Files, Pictures
from instil.data.samples import Samples
from instil.data.splits import Splits

PARTS = ("train", "validation", "test")


def sample_keys(splits: Splits) -> dict[str, list[str]]:
    """Return the key of every sample.

    A picture of a folder has its path, relative to the folder that all pictures share, such as
    ``cat/1.png``. Any other sample has its row in the source, from 0, such as ``17``. If the source
    has splits of its own, the name of the split comes first, such as ``train/17``.

    Args:
        splits: data of a source.

    Returns:
        Split -> keys in the order of the samples.
    """
    parts = {name: getattr(splits, name) for name in PARTS}
    files = {name: _picture_files(part) for name, part in parts.items()}
    if all(files.values()):
        return _relative(files)
    rows = {name: part.origin.tolist() for name, part in parts.items()}
    every_row = list(itertools.chain(*rows.values()))
    if len(set(every_row)) == len(every_row):
        return {name: [str(row) for row in of_part] for name, of_part in rows.items()}
    return {
        name: [f"{parts[name].source_split}/{row}" for row in of_part]
        for name, of_part in rows.items()
    }


def with_unique_indices(splits: Splits) -> Splits:
    """Return the same data, in which no two samples of different splits have the same index.

    The training samples keep theirs; those of validation and test follow.

    Args:
        splits: data with indices from 0 in each split.
    """
    start = int(splits.train.index.max()) + 1
    numbered: dict[str, Samples] = {}
    for name in PARTS[1:]:
        part = copy.copy(getattr(splits, name))
        part.index = part.index + start
        start = int(part.index.max()) + 1
        numbered[name] = part
    return dataclasses.replace(splits, **numbered)  # type: ignore[arg-type]


def _picture_files(samples: Samples) -> list[Path]:
    """Picture file of each sample; empty for samples without files."""
    if not isinstance(samples, LazyData) or not isinstance(samples.read, Pictures):
        return []
    opener = samples.read.open
    if not isinstance(opener, Files):
        return []
    return [opener.paths[row] for row in samples.rows.tolist()]


def _relative(files: Mapping[str, list[Path]]) -> dict[str, list[str]]:
    folders = {str(path.parent) for path in itertools.chain(*files.values())}
    root = os.path.commonpath(folders)
    return {
        name: [path.relative_to(root).as_posix() for path in of_part]
        for name, of_part in files.items()
    }
