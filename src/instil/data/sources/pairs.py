"""Source ``pairs``: pairs of source and target texts from tab-separated or JSON Lines files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from typing_extensions import Doc

from instil.data.pair_tokenizers import pair_tokenizer
from instil.data.sequence_pairs import SequencePairs, text_pairs
from instil.data.sources.table import read_table
from instil.data.splits import (
    HOLD_OUT_SEED,
    Splits,
    TestOption,
    ValidationOption,
    splits,
)
from instil.data.tables import Files, check_columns, files_of, read_jsonl

Pair = tuple[str, str | None]
PairSource = Annotated[
    str,
    Doc(
        "characters, words (split at white space), bytes, bpe:SIZE, a tokenizer file or folder, or "
        "the name of a model on the hub"
    ),
]
PairTarget = Annotated[
    str | None, Doc("characters or words, for the targets; null: as for the sources")
]
PairLength = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc("largest number of tokens of source and target; longer pairs are left out; null: all"),
]
Limit = Annotated[
    Annotated[int, Ge(1)] | None, Doc("number of training pairs, drawn at random; null: all")
]


def pairs(
    files: Annotated[
        Files,
        Doc(
            "tab-separated file with a header (.tsv, .txt), .jsonl, .csv or .parquet file or "
            "pattern, or files by split (train, validation, test)"
        ),
    ],
    source: Annotated[str, Doc("column of the sources")] = "source",
    target: Annotated[str, Doc("column of the targets; empty: a missing label")] = "target",
    tokenizer: PairSource = "characters",
    target_tokenizer: PairTarget = None,
    special_tokens: Annotated[
        bool,
        Doc(
            "whether a tokenizer file adds its own special tokens, such as the first token of BART"
        ),
    ] = True,
    max_length: PairLength = None,
    rows: Limit = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Pairs of texts for the task ``seq2seq``, such as words and their pronunciations.

    Sources and targets share one vocabulary, which is that of the training pairs for characters
    and words. Both end with the end token.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing column, and a missing source.
    """
    by_split: dict[str, list[Pair]] = {}
    for split, paths in files_of(files, base).items():
        by_split[split] = []
        for path in paths:
            by_split[split] += _pairs_of(path, source, target)
    names = (tokenizer, target_tokenizer)
    shares = (validation, test)
    return pair_splits(by_split, names, max_length, rows, shares, base, special_tokens)


def pair_splits(
    by_split: Mapping[str, Sequence[Pair]],
    tokenizers: tuple[str, str | None],
    max_length: int | None,
    rows: int | None,
    shares: tuple[float, float],
    base: Path = Path(),
    special_tokens: bool = True,
) -> Splits:
    """Return the train, validation and test data of pairs of texts.

    Args:
        by_split: pairs of each split; missing splits are held out of the training pairs.
        tokenizers: tokenizers of sources and targets.
        max_length: largest number of tokens of source and target; None for all.
        rows: number of training pairs, drawn at random; None for all.
        shares: shares of the training pairs for missing validation and test pairs.
        base: folder that relative paths start from.
        special_tokens: whether a tokenizer file adds its own special tokens.

    Raises:
        ValueError: without a pair, or for tokenizers that do not fit.
    """
    complete = _with_held_out(by_split, shares)
    complete["train"] = _drawn(complete["train"], rows)
    labelled = [(source, target or "") for source, target in complete["train"]]
    shared = pair_tokenizer(*tokenizers, labelled, base, special_tokens)
    parts: dict[str, SequencePairs] = {}
    notes = []
    for split, part in complete.items():
        fitting = []
        for source, target in part:
            longest = max(len(shared.source_ids(source)), len(shared.target_ids(target or "")))
            if max_length is None or longest <= max_length:
                fitting.append((source, target))
        if len(fitting) < len(part):
            left_out = len(part) - len(fitting)
            notes.append(f"{left_out} {split} pairs are longer than {max_length} tokens: left out")
        if part and not fitting:
            raise ValueError(
                f"max_length: all {len(part)} {split} pairs are longer than {max_length} tokens. "
                "Increase data.max_length"
            )
        if not fitting:
            raise ValueError(f"files: there is no {split} pair. Expected at least one")
        parts[split] = text_pairs(fitting, shared)
    data = splits(parts, *shares)
    return Splits(data.train, data.validation, data.test, data.classes, data.kind, tuple(notes))


def _with_held_out(
    by_split: Mapping[str, Sequence[Pair]], shares: tuple[float, float]
) -> dict[str, list[Pair]]:
    """Pairs of all splits; those of equal sources are never in two splits that are held out.

    Raises:
        ValueError: without training pairs.
    """
    if "train" not in by_split:
        raise ValueError(f"files: no train set, only {', '.join(by_split) or 'nothing'}")
    complete = {split: list(part) for split, part in by_split.items()}
    sources = sorted({source for source, _ in complete["train"]})
    generator = torch.Generator().manual_seed(HOLD_OUT_SEED)
    order = torch.randperm(len(sources), generator=generator).tolist()
    start = 0
    for split, share in zip(("test", "validation"), reversed(shares), strict=True):
        if split in complete:
            continue
        count = round(share * len(sources))
        held_out = {sources[index] for index in order[start : start + count]}
        start += count
        complete[split] = [pair for pair in complete["train"] if pair[0] in held_out]
        complete["train"] = [pair for pair in complete["train"] if pair[0] not in held_out]
    return complete


def _drawn(pairs: list[Pair], rows: int | None) -> list[Pair]:
    """Random pairs in their order, the same for every run; files are often sorted."""
    if rows is None or rows >= len(pairs):
        return pairs
    generator = torch.Generator().manual_seed(HOLD_OUT_SEED)
    order = torch.randperm(len(pairs), generator=generator)[:rows]
    return [pairs[index] for index in order.sort().values.tolist()]


def _pairs_of(path: Path, source: str, target: str) -> list[Pair]:
    """Pairs of a file; an error names the line of a missing source."""
    names = [source, target]
    if path.suffix in READERS:
        table = READERS[path.suffix](path, names)
    else:
        table = read_table(path, names)
        check_columns(path, names, table)
    pairs_of_file: list[Pair] = []
    for index, (text, answer) in enumerate(zip(table[source], table[target], strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{path}: pair {index} has no text in column '{source}'")
        if answer is not None and not isinstance(answer, str):
            kind = type(answer).__name__
            raise ValueError(
                f"{path}: pair {index} has no text in column '{target}'. Expected a text, got "
                f"{kind}"
            )
        pairs_of_file.append((text, answer if answer and answer.strip() else None))
    return pairs_of_file


def read_tsv(path: Path, names: list[str]) -> dict[str, list[str | None]]:
    """Return columns of a tab-separated file, whose first line names them.

    Args:
        path: the file, in UTF-8.
        names: columns to return.

    Raises:
        ValueError: for a file that is not UTF-8, a missing column, and a line of other columns.
    """
    try:
        # Not splitlines(): texts may contain other line separators, such as U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: invalid UTF-8: {error}") from error
    header = lines[0].split("\t")
    check_columns(path, names, header)
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    for line_number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {line_number}: {len(cells)} columns. Expected {len(header)}, as in "
                "the first line"
            )
        for name in names:
            columns[name].append(cells[header.index(name)])
    return columns


READERS: Mapping[str, Any] = {".jsonl": read_jsonl, ".tsv": read_tsv, ".txt": read_tsv}
"""Function that reads columns of a file, by its ending; ``read_table`` reads the others."""
