"""Source ``texts``: labelled texts, or pairs of them, from CSV, Parquet or JSON Lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.column_samples import ClassesOption
from instil.data.query_passages import TextEncoder, cut_note, framed, separators
from instil.data.samples import Samples, TensorData
from instil.data.sources.table import read_table
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.table_encoder import is_missing
from instil.data.table_labels import class_labels
from instil.data.tables import Files, check_columns, files_of
from instil.data.tokenizers import Tokenizer, TokenizerOption
from instil.data.tokenizers import load_tokenizer as build_tokenizer

Columns = dict[str, list[Any]]
"""Values by name of column."""


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
    tokenizer: TokenizerOption = "bpe:2048",
    length: Annotated[int, Ge(4), Doc("length of a row in tokens; longer texts are cut")] = 64,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Texts with one class each, for the task ``text_classification``.

    Samples have ``input_ids`` and ``attention_mask`` (N, ``length``) with the start and end token
    of the tokenizer. With ``pair``, the second text follows the end token of the first, or the
    separator of the tokenizer; both are cut to half of the row if they do not fit. Rows without a
    text are left out, with a note.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, values other than texts, and
            a class that is not in ``classes``.
    """
    names = [name for name in (text, pair) if name is not None]
    columns: dict[str, Columns] = {}
    rows: dict[str, list[int]] = {}
    notes: list[str] = []
    for split, paths in files_of(files, base).items():
        columns[split], rows[split] = _read(paths, names, label, classes, notes)
    training = columns.get("train", {name: [] for name in names})
    words = chain.from_iterable(training[name] for name in names)
    encoder = build_tokenizer(tokenizer, words, base)
    # Classes are those of all splits, so that a class without a training text keeps its index.
    every_label = list(chain.from_iterable(part[label] for part in columns.values()))
    _, class_names = class_labels(every_label, classes)
    parts: dict[str, Samples] = {}
    for split, part in columns.items():
        ids, mask = _rows([part[name] for name in names], encoder, length, split, notes)
        labels, _ = class_labels(part[label], class_names)
        tensors = {"input_ids": ids, "attention_mask": mask}
        facts = {"vocabulary": encoder.size, "length": length}
        parts[split] = TensorData(tensors, labels, class_names, facts)
        parts[split].origin = torch.tensor(rows[split])
        parts[split].encode_texts = TextEncoder(encoder, length)
    # Equal texts are held out together.
    group = list(zip(*(training[name] for name in names), strict=True))
    return replace(splits(parts, validation, test, group), notes=tuple(notes))


def _read(
    paths: Sequence[Path],
    names: Sequence[str],
    label: str,
    classes: Sequence[str] | None,
    notes: list[str],
) -> tuple[Columns, list[int]]:
    """Columns of all files without the rows that lack a text, and the rows of the source."""
    columns: Columns = {name: [] for name in (*names, label)}
    rows: list[int] = []
    start = 0
    for path in paths:
        table = _checked_columns(path, names, label)
        _check_labels(path, table[label], classes)
        texts = zip(*(table[name] for name in names), strict=True)
        has_text = [all(part.strip() for part in parts) for parts in texts]
        present = [row for row, is_present in enumerate(has_text) if is_present]
        if not present:
            raise ValueError(f"{path}: no row has a text in {' and '.join(names)}")
        if num_empty := has_text.count(False):
            notes.append(
                f"{path}: rows without a text are left out: {num_empty} of {len(has_text)}, the "
                f"first is row {has_text.index(False)}"
            )
        for name, values in columns.items():
            values += [table[name][row] for row in present]
        rows += [start + row for row in present]
        start += len(has_text)
    return columns, rows


def _checked_columns(path: Path, names: Sequence[str], label: str) -> Columns:
    """Columns of a file, with an empty text in place of a missing one."""
    table = read_table(path, names, [label])
    for option, name in (*(("text", name) for name in names), ("label", label)):
        check_columns(path, [name], table, option)
    for name in names:
        table[name] = ["" if is_missing(value) else value for value in table[name]]
        for row, value in enumerate(table[name]):
            if not isinstance(value, str):
                raise ValueError(f"{path}, row {row}: '{name}' is {value!r:.60}. Expected a text")
    return table


def _check_labels(path: Path, values: Sequence[Any], classes: Sequence[str] | None) -> None:
    """Check the labels of a file, while the numbers of their rows are those of the file."""
    try:
        class_labels(values, classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _rows(
    columns: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
    length: int,
    split: str,
    notes: list[str],
) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask (N, ``length``) of texts, or of pairs of texts.

    Texts that are cut add a sentence to ``notes``.
    """
    num_rows = len(columns[0])
    ids = torch.full((num_rows, length), tokenizer.end)
    mask = torch.zeros(num_rows, length, dtype=torch.int64)
    num_cut = 0
    between = separators(tokenizer)
    for row, parts in enumerate(zip(*columns, strict=True)):
        tokens = framed(tokenizer, parts[0])
        second = []
        if len(parts) == 2:
            # The first text ends with the first separator.
            second = [*between[1:], *tokenizer.encode(parts[1])[0], tokenizer.end]
        num_cut += len(tokens) + len(second) > length
        tokens = _joined(tokens, second, length)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    notes += cut_note(num_cut, num_rows, split, length)
    return ids, mask


def _joined(first: list[int], second: list[int], length: int) -> list[int]:
    """Return one or two texts that fit into a row, each cut before its end token."""
    half = length // 2 if second else 0
    num_first = max(half, length - len(second))
    num_second = max(length - half, length - len(first))
    if len(first) > num_first:
        first = [*first[: num_first - 1], first[-1]]
    if len(second) > num_second:
        second = [*second[: num_second - 1], second[-1]]
    return first + second
