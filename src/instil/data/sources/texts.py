"""Source ``texts``: labelled texts, or pairs of them, from CSV, Parquet or JSON Lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.cards.closest import did_you_mean
from instil.data.column_samples import ClassesOption
from instil.data.query_passages import framed
from instil.data.samples import Samples, TensorData
from instil.data.sources.table import read_table
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.table_labels import class_labels
from instil.data.tables import Files, files_of
from instil.data.tokenizers import Tokenizer
from instil.data.tokenizers import load_tokenizer as build_tokenizer


def texts(
    files: Annotated[
        Files,
        Doc(
            "file or pattern (.csv, .tsv, .parquet, .jsonl), or files by split (train, validation, "
            "test)"
        ),
    ],
    text: Annotated[str, Doc("column of the text")] = "text",
    pair: Annotated[
        str | None, Doc("column of a second text, which follows the first; null: none")
    ] = None,
    label: Annotated[str, Doc("column of the class; empty: no label")] = "label",
    classes: ClassesOption = None,
    tokenizer: Annotated[
        str, Doc("bytes, bpe:SIZE (trained on the training texts), or a tokenizer file or folder")
    ] = "bpe:2048",
    length: Annotated[int, Ge(4), Doc("length of a row in tokens; longer texts are cut")] = 64,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Texts with one class each, for the task ``text_classification``.

    Samples have ``input_ids`` and ``attention_mask`` (N, ``length``) with the start and end token
    of the tokenizer. With ``pair``, the second text follows the end token of the first; both are
    cut to half of the row if they do not fit.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, an empty text, and a class
            that is not in ``classes``.
    """
    names = [name for name in (text, pair) if name is not None]
    columns: dict[str, dict[str, list[Any]]] = {}
    for split, paths in files_of(files, base).items():
        columns[split] = {name: [] for name in (*names, label)}
        for path in paths:
            for name, values in _checked_columns(path, names, label).items():
                columns[split][name] += values
    training = columns.get("train", {name: [] for name in names})
    words = chain.from_iterable(training[name] for name in names)
    encoder = build_tokenizer(tokenizer, words, base)
    # Classes are those of all splits, so that a class without a training text keeps its index.
    every_label = list(chain.from_iterable(part[label] for part in columns.values()))
    _, class_names = class_labels(every_label, classes)
    parts: dict[str, Samples] = {}
    for split, part in columns.items():
        ids, mask = _rows([part[name] for name in names], encoder, length)
        labels, _ = class_labels(part[label], class_names)
        tensors = {"input_ids": ids, "attention_mask": mask}
        facts = {"vocabulary": encoder.size, "length": length}
        parts[split] = TensorData(tensors, labels, class_names, facts)
    return splits(parts, validation, test)


def _checked_columns(path: Path, names: Sequence[str], label: str) -> dict[str, list[Any]]:
    """Return the columns of a file, and check that no text is empty."""
    table = read_table(path)
    for option, name in (*(("text", name) for name in names), ("label", label)):
        if name not in table:
            raise ValueError(
                f"{option}: {path} has no column '{name}'. Expected one of {', '.join(table)}."
                f"{did_you_mean(name, table)}"
            )
    for name in names:
        for row, value in enumerate(table[name]):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"{path}, row {row}: '{name}' is {value!r:.60}. Expected a text that is not "
                    "empty"
                )
    return {name: table[name] for name in (*names, label)}


def _rows(
    columns: Sequence[Sequence[str]], tokenizer: Tokenizer, length: int
) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask (N, ``length``) of texts, or of pairs of texts."""
    num_rows = len(columns[0])
    ids = torch.full((num_rows, length), tokenizer.end)
    mask = torch.zeros(num_rows, length, dtype=torch.int64)
    for row, parts in enumerate(zip(*columns, strict=True)):
        tokens = framed(tokenizer, parts[0], length)
        if len(parts) == 2:
            second = [*tokenizer.encode(parts[1])[0], tokenizer.end]
            tokens = _joined(framed(tokenizer, parts[0], 1 << 30), second, length)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask


def _joined(first: list[int], second: list[int], length: int) -> list[int]:
    """Return two texts that fit into a row; the longer one is cut before its end token."""
    half = length // 2
    num_first = max(half, length - len(second))
    num_second = max(length - half, length - len(first))
    if len(first) > num_first:
        first = [*first[: num_first - 1], first[-1]]
    if len(second) > num_second:
        second = [*second[: num_second - 1], second[-1]]
    return first + second
