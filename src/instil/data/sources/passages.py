"""Source ``passages``: queries, relevant and other passages from JSON Lines files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.query_passages import TextEncoder, cut_notes, query_data, token_rows
from instil.data.samples import Samples, TensorData
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.tables import Files, check_columns, files_of, jsonl_rows
from instil.data.tokenizers import Tokenizer, TokenizerOption
from instil.data.tokenizers import load_tokenizer as build_tokenizer

Row = Mapping[str, Any]


def passages(
    files: Annotated[
        Files,
        Doc("file or pattern such as `part-*.jsonl`, or files by split (train, validation, test)"),
    ],
    query: Annotated[str, Doc("field of the query")] = "query",
    positive: Annotated[str, Doc("field of the relevant passage")] = "positive",
    negatives: Annotated[
        str | None, Doc("field of the other passages, a list; null: pairs of two texts")
    ] = "negatives",
    scores: Annotated[
        str | None, Doc("field of teacher scores: first the positive passage, then the others")
    ] = None,
    tokenizer: TokenizerOption = "bpe:2048",
    length: Annotated[int, Ge(4), Doc("length of a text in tokens; longer texts are cut")] = 64,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Queries with a relevant passage and others, one JSON object per line.

    Samples are those of the task ``ranking``: the relevant passage has grade 1, the others 0. With
    ``negatives: null`` they are pairs of texts for the task ``sentence_embedding``, such as a text
    and its translation.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, and for a line without these fields.
    """
    _check_task(task_name, negatives)
    names = [name for name in (query, positive, negatives, scores) if name is not None]
    rows = {split: _checked_rows(paths, names) for split, paths in files_of(files, base).items()}
    training = rows.get("train", [])
    texts = chain.from_iterable((row[query], row[positive]) for row in training)
    encoder = build_tokenizer(tokenizer, texts, base)
    parts: dict[str, Samples] = {}
    notes: list[str] = []
    for split, part in rows.items():
        notes += cut_notes(encoder, _texts(part, names), length, split)
        if negatives is None:
            parts[split] = _pairs(part, (query, positive), encoder, length)
            continue
        parts[split] = query_data(
            [row[query] for row in part],
            [[row[positive], *row[negatives]] for row in part],
            [[1.0, *[0.0] * len(row[negatives])] for row in part],
            encoder,
            length,
            None if scores is None else [row[scores] for row in part],
        )
    _check_widths(parts)
    divided = splits(parts, validation, test, [row[query] for row in training])
    return replace(divided, notes=tuple(notes))


def _texts(rows: list[Row], names: Sequence[str]) -> Iterator[str]:
    """Query, relevant passage and other passages of all rows."""
    for row in rows:
        yield from (row[names[0]], row[names[1]])
        if len(names) > 2:
            yield from row[names[2]]


def _check_task(task_name: str, negatives: str | None) -> None:
    """Refuse pairs for the task ranking, and lists of passages for another task."""
    if task_name == "ranking" and negatives is None:
        raise ValueError(
            "negatives: the task ranking needs other passages. Expected the field with their "
            "list, got null. Name the field, or use the task sentence_embedding"
        )
    if task_name == "sentence_embedding" and negatives is not None:
        raise ValueError(
            "negatives: the task sentence_embedding reads pairs of texts. Expected null, got "
            f"'{negatives}'. Set negatives: null, or use the task ranking"
        )


def _checked_rows(paths: Sequence[Path], names: list[str]) -> list[Row]:
    """Objects of files, each with text in the fields of query and positive passage."""
    rows: list[Row] = []
    for path in paths:
        for line, row in enumerate(jsonl_rows(path), 1):
            try:
                check_columns(path, names, list(row))
                _check_row(row, names)
            except ValueError as error:
                raise ValueError(f"{path}, row {line}: {error}") from error
            rows.append(row)
    return rows


def _check_row(row: Row, names: list[str]) -> None:
    for name in names[:2]:
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"'{name}' is {row[name]!r}. Expected a text that is not empty")
    if len(names) < 3:
        return
    others = row[names[2]]
    is_texts = isinstance(others, list) and all(isinstance(text, str) for text in others)
    if not is_texts or not others or not all(text.strip() for text in others):
        raise ValueError(f"'{names[2]}' is {others!r:.60}. Expected a list of texts, at least one")
    if len(names) == 4:
        _check_scores(row[names[3]], names[3], len(others) + 1)


def _check_scores(values: Any, name: str, size: int) -> None:
    is_numbers = isinstance(values, list) and all(
        isinstance(value, (int, float)) and abs(value) < 1e3 for value in values
    )
    if not is_numbers or len(values) != size:
        raise ValueError(
            f"'{name}' is {values!r:.60}. Expected {size} numbers between -1000 and 1000, one for "
            "each passage with the positive one first"
        )


def _check_widths(parts: Mapping[str, Samples]) -> None:
    """Refuse splits whose largest numbers of passages differ."""
    widths = {name: part.label.shape[1:] for name, part in parts.items()}
    if len(set(widths.values())) > 1:
        sizes = ", ".join(f"{name} {int(shape[0])}" for name, shape in widths.items())
        raise ValueError(
            f"files: the largest numbers of passages per query differ ({sizes}). Expected the same "
            "in all splits. Cut the longer lists"
        )


def _pairs(
    rows: list[Row], names: tuple[str, str], tokenizer: Tokenizer, length: int
) -> TensorData:
    """Pairs of texts, all of one class."""
    tensors: dict[str, Tensor] = {}
    for name, prefix in zip(names, ("", "partner_"), strict=True):
        ids, mask = token_rows(tokenizer, [row[name] for row in rows], length)
        tensors |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    facts = {"vocabulary": tokenizer.size, "length": length}
    data = TensorData(tensors, torch.zeros(len(rows), dtype=torch.int64), ("text",), facts)
    data.encode_texts = TextEncoder(tokenizer, length)
    return data
