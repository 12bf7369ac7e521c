"""Source ``captions``: pictures with a text each, from CSV, Parquet or JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch
from instil.data.column_samples import ClassesOption
from instil.data.images import LazyData
from instil.data.paths import located
from instil.data.picture_check import BrokenOption, readable_pictures
from instil.data.pictures import (
    BackgroundOption,
    ChannelsOption,
    Files,
    SizeOption,
    pictures,
)
from instil.data.query_passages import TextEncoder
from instil.data.samples import Facts, Samples
from instil.data.sources.table import read_table
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.table_labels import class_labels
from instil.data.tables import Files as TableFiles
from instil.data.tables import check_columns, files_of
from instil.data.tokenizers import TokenizerOption
from instil.data.tokenizers import load_tokenizer as build_tokenizer

CaptionFiles = Annotated[
    TableFiles,
    Doc("file or pattern (.csv, .tsv, .parquet, .jsonl), or a file or pattern for each split"),
]


def captions(
    files: CaptionFiles,
    image: Annotated[
        str, Doc("column of the picture files, relative to the folder of the table")
    ] = "image",
    text: Annotated[str, Doc("column of the text")] = "text",
    label: Annotated[
        str | None,
        Doc("column of the class for zero-shot evaluation; empty: no label; null: no classes"),
    ] = None,
    classes: ClassesOption = None,
    tokenizer: TokenizerOption = "bpe:2048",
    length: Annotated[int, Ge(4), Doc("length of a text in tokens; longer texts are cut")] = 32,
    size: SizeOption = None,
    channels: ChannelsOption = 3,
    background: BackgroundOption = "white",
    broken: BrokenOption = "error",
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Pictures with a text each, for the task ``image_text``.

    Samples have ``image`` (N, C, H, W), ``input_ids`` and ``attention_mask`` (N, ``length``) with
    the start and end token of the tokenizer. Pictures are decoded when they are read. A picture
    with several texts is in several rows, which are held out together. Then samples have
    ``picture`` (N,), the index of the picture.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, an empty text, and a class
            that is not in ``classes``.
    """
    tables: dict[str, Table] = {}
    for split, paths in files_of(files, base).items():
        tables[split] = Table([], [], [])
        for path in paths:
            tables[split].extend(_read(path, image, text, label))
    tables, notes = _readable(tables, base, broken)
    training = tables["train"] if "train" in tables else Table([], [], [])
    encode = TextEncoder(build_tokenizer(tokenizer, training.texts, base), length)
    class_names: Sequence[str] = ()
    if label is not None:
        # Classes are those of all splits, so that a class of the test data has an index.
        every_label = list(chain.from_iterable(table.labels for table in tables.values()))
        _, class_names = class_labels(every_label, classes)
    data: dict[str, Samples] = {}
    for split, table in tables.items():
        if not table.files:
            continue
        read = pictures(Files(tuple(table.files)), channels, size, background)
        labels = _labels(table, class_names)
        tensors = encode(table.texts) | _repeated_pictures(table.files)
        data[split] = CaptionData(read, encode, tensors, labels, class_names)
    divided = splits(data, validation, test, tables["train"].files if "train" in tables else None)
    return replace(divided, notes=notes)


def _repeated_pictures(files: Sequence[Path]) -> Batch:
    """Index ``picture`` (N,) of each file among the different ones; empty if all differ."""
    indices = {file: index for index, file in enumerate(dict.fromkeys(files))}
    if len(indices) == len(files):
        return {}
    return {"picture": torch.tensor([indices[file] for file in files])}


def _labels(table: Table, class_names: Sequence[str]) -> Tensor:
    """Class indices (N,) of the rows; -100 for data without classes."""
    if not class_names:
        return torch.full((len(table.files),), UNLABELLED)
    return class_labels(table.labels, class_names)[0]


@dataclass(frozen=True)
class Table:
    """Pictures and texts of a split.

    Args:
        files: N picture files.
        texts: N texts.
        labels: class of each row, as in the table; empty without classes.
    """

    files: list[Path]
    texts: list[str]
    labels: list[Any]

    def extend(self, other: Table) -> None:
        """Append the rows of another table."""
        self.files.extend(other.files)
        self.texts.extend(other.texts)
        self.labels.extend(other.labels)


class CaptionData(LazyData):
    """Pictures that are decoded on demand, with a text each in memory.

    Args:
        read: function from a row to a picture.
        encode: tokenizer of the texts.
        texts: ``input_ids`` and ``attention_mask`` (N, L), and further entries of a batch.
        label: class indices (N,), -100 for no label.
        classes: class names; empty for data without classes.
    """

    noun = "sample"

    def __init__(
        self,
        read: Callable[[int], Any],
        encode: TextEncoder,
        texts: Batch,
        label: Tensor,
        classes: Sequence[str],
    ):
        self.encode_texts = encode
        self.encoder = encode
        self.tensors = texts
        super().__init__(read, label, classes)

    def inputs(self, rows: Tensor) -> Batch:
        return super().inputs(rows) | {key: value[rows] for key, value in self.tensors.items()}

    def _take(self, rows: Tensor) -> None:
        super()._take(rows)
        self.tensors = {key: value[rows] for key, value in self.tensors.items()}

    @property
    def facts(self) -> Facts:
        """Facts of the images, with ``vocabulary`` and ``length`` of the texts."""
        texts = {"vocabulary": self.encoder.tokenizer.size, "length": self.encoder.length}
        return super().facts | texts


def _read(path: Path, image: str, text: str, label: str | None) -> Table:
    """Return the rows of a file, and check that pictures exist and no text is empty."""
    table = read_table(path, (image, text), () if label is None else (label,))
    for option, name in (("image", image), ("text", text), ("label", label)):
        check_columns(path, [] if name is None else [name], table, option)
    for name in (image, text):
        for row, value in enumerate(table[name]):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"{path}, row {row}: '{name}' is {value!r:.60}. Expected a text that is not "
                    "empty"
                )
    files: list[Path] = []
    for row, name in enumerate(table[image]):
        try:
            files.append(located(name, path.parent))
        except ValueError as error:
            raise ValueError(f"{path}, row {row}: {error}") from error
    return Table(files, table[text], [] if label is None else table[label])


def _readable(
    tables: dict[str, Table], root: Path, on_broken: str
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Rows whose picture can be read, and a note about the others."""
    every_file = list(chain.from_iterable(table.files for table in tables.values()))
    good_files, notes = readable_pictures(every_file, root.resolve(), on_broken)
    readable: dict[str, Table] = {}
    for split, table in tables.items():
        rows = [row for row, file in enumerate(table.files) if file in good_files]
        readable[split] = Table(
            [table.files[row] for row in rows],
            [table.texts[row] for row in rows],
            [table.labels[row] for row in rows] if table.labels else [],
        )
    return readable, notes
