"""Source ``docstrings``: pairs of texts from the docstrings of Python modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.documents import Document, documents
from instil.data.label_kinds import GradedData
from instil.data.query_passages import TextEncoder, framed, query_data
from instil.data.samples import TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer, TokenizerOption
from instil.data.tokenizers import load_tokenizer as build_tokenizer
from instil.data.unpaired import unpair

MIN_WORDS = 4
"""Smallest number of words of each text of a pair."""
MAX_PAIRS = 16
"""Largest number of pairs of one module."""

Pair = tuple[str, str]


PassagesOption = Annotated[
    int | None,
    Ge(2),
    Doc("number of passages per query for the task ranking; null: pairs of texts"),
]
NumPairsOption = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc("number of training pairs; the other samples have the partner of another one. null: all"),
]


def docstrings(
    path: Annotated[
        str, Doc("stdlib (the modules of this Python's standard library), or a folder of modules")
    ] = "stdlib",
    tokenizer: TokenizerOption = "bpe:2048",
    length: Annotated[int, Ge(4), Doc("length of a text in tokens; longer texts are cut")] = 32,
    rows: Annotated[int | None, Doc("largest number of training pairs; null: all")] = None,
    held_out: Annotated[
        int | None, Doc("largest number of validation pairs, and of test pairs; null: all")
    ] = None,
    passages: PassagesOption = None,
    num_pairs: NumPairsOption = None,
    base: Path = Path(),
) -> Splits:
    """Pairs of a docstring's first sentence and its remaining text, for text embeddings.

    Samples have ``input_ids`` and ``attention_mask`` (N, ``length``) of the first sentence, and
    the same keys with the prefix ``partner_`` for the remaining text. The label is the module, and
    the splits use different modules. A text has the start and end token of the tokenizer.

    With ``num_pairs``, ``is_pair`` (N,) is False for the training samples with the partner of
    another one. Losses that learn from pairs leave them out.

    With ``passages``, the first sentence is a query for the task ``ranking``. Its passages are its
    own remaining text, with grade 1, and random others of the same split, with grade 0.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if a split has no docstring of two sentences, or for too many ``num_pairs``.
    """
    parts = documents(path, base)
    texts = chain.from_iterable(map(_texts, parts[0]))
    encoder = build_tokenizer(tokenizer, texts, base)
    limits = (rows, held_out, held_out)
    pairs = [list(islice(_pairs(part), limit)) for part, limit in zip(parts, limits, strict=True)]
    if not all(pairs):
        raise ValueError(
            f"path: one split of '{path}' has no docstring of two sentences. Expected modules with "
            "docstrings in every split"
        )
    if passages is not None:
        queries = []
        for seed, pairs_of_split in enumerate(pairs):
            queries.append(_query_data(pairs_of_split, encoder, length, passages, seed))
        return Splits(queries[0], queries[1], queries[2], queries[0].classes, queries[0].kind)
    modules: set[str] = set()
    for part in pairs:
        modules.update(name for name, _ in part)
    classes = sorted(modules)
    facts = {"vocabulary": encoder.size, "length": length}
    train, validation, test = (_data(part, encoder, length, classes, facts) for part in pairs)
    if num_pairs is not None:
        unpair(train, num_pairs, ("partner_input_ids", "partner_attention_mask"))
    return Splits(train, validation, test, train.classes, train.kind)


def _pairs(part: Sequence[Document]) -> Iterator[tuple[str, Pair]]:
    """Module name and pair of each docstring with two sentences."""
    for document in part:
        pairs = filter(None, map(split_docstring, _texts(document)))
        for pair in islice(pairs, MAX_PAIRS):
            yield document.name, pair


def _texts(document: Document) -> Iterator[str]:
    """Docstrings of a module; none if it is written for another version of Python."""
    try:
        tree = ast.parse(document.text)
    except SyntaxError:
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        if docstring:
            yield docstring


def split_docstring(docstring: str) -> Pair | None:
    """Return the first sentence and the rest; None if one has fewer than four words."""
    separator = ".\n" if ".\n" in docstring else "\n\n"
    first, match, rest = docstring.partition(separator)
    pair = " ".join(first.split()), " ".join(rest.split())
    is_long_enough = min(len(text.split()) for text in pair) >= MIN_WORDS
    return pair if match and is_long_enough else None


def _data(
    pairs: Sequence[tuple[str, Pair]],
    tokenizer: Tokenizer,
    length: int,
    classes: Sequence[str],
    facts: dict[str, Any],
) -> TensorData:
    tensors: dict[str, Tensor] = {}
    for side, prefix in enumerate(("", "partner_")):
        ids = torch.full((len(pairs), length), tokenizer.end)
        mask = torch.zeros(len(pairs), length, dtype=torch.int64)
        for row, (_, pair) in enumerate(pairs):
            tokens = framed(tokenizer, pair[side], length)
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        tensors |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    indices = {name: index for index, name in enumerate(classes)}
    label = torch.tensor([indices[name] for name, _ in pairs])
    data = TensorData(tensors, label, classes, facts)
    data.encode_texts = TextEncoder(tokenizer, length)
    return data


def _query_data(
    pairs: Sequence[tuple[str, Pair]], tokenizer: Tokenizer, length: int, size: int, seed: int
) -> GradedData:
    """Queries with ``size`` passages: their own, at a random position, and others of the split."""
    if len(pairs) < size:
        raise ValueError(
            f"passages: {size} is too large. Expected at most the {len(pairs)} pairs of a split"
        )
    generator = torch.Generator().manual_seed(seed)
    passages = []
    grades = []
    for row in range(len(pairs)):
        others = torch.randperm(len(pairs) - 1, generator=generator)[: size - 1]
        rows = torch.cat([torch.tensor([row]), others + (others >= row)])
        rows = rows[torch.randperm(size, generator=generator)]
        passages.append([pairs[other][1][1] for other in rows.tolist()])
        grades.append((rows == row).float().tolist())
    return query_data([pair[0] for _, pair in pairs], passages, grades, tokenizer, length)
