"""What functions and classes of Python's own library say of themselves: the first sentence, and the rest of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from instil.data.documents import Document, documents
from instil.data.samples import TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer
from instil.data.tokenizers import tokenizer as tokenizer_of

WORDS = 4  # in either half, at least
EACH = 16  # of one module, at most
Pair = tuple[str, str]


def docstrings(
    path: str = "stdlib",
    tokenizer: str = "bpe:2048",
    length: Annotated[int, Ge(4)] = 32,
    rows: int | None = None,
    held_out: int | None = None,
    base: Path = Path(),
) -> Splits:
    """Pairs of texts: ``input_ids`` and ``attention_mask`` (N, ``length``) of a docstring's first sentence, and ``partner_...`` of what follows it.

    ``path``: as of ``text``; parts are split by module, which is the ``label``. A text is cut at ``length`` tokens; the first and the last of them
    are those that the tokenizer begins and ends a text with. ``rows`` and ``held_out`` are at most so many pairs to train and to judge on.

    Raises ValueError where a part has no docstring of two sentences.
    """
    parts = documents(path, base)
    made = tokenizer_of(
        tokenizer, (text for document in parts[0] for text in _texts(document)), base
    )
    found = [
        list(islice(_pairs(part), limit))
        for part, limit in zip(parts, (rows, held_out, held_out), strict=True)
    ]
    if not all(found):
        raise ValueError(f"one part of '{path}' has no docstring of two sentences")
    classes = sorted({name for part in found for name, _ in part})
    facts = {"vocabulary": made.size, "length": length}
    train, validation, test = (_data(part, made, length, classes, facts) for part in found)
    return Splits(train, validation, test, train.classes, train.kind)


def _pairs(part: Sequence[Document]) -> Iterator[tuple[str, Pair]]:
    """The name of each module with its pairs."""
    for document in part:
        for pair in islice(filter(None, map(halves, _texts(document))), EACH):
            yield document.name, pair


def _texts(document: Document) -> Iterator[str]:
    try:
        tree = ast.parse(document.text)
    except SyntaxError:  # of another Python
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            said := ast.get_docstring(node)
        ):
            yield said


def halves(said: str) -> Pair | None:
    """The first sentence and the rest, None where one of them is short."""
    first, dot, rest = said.partition(".\n") if ".\n" in said else said.partition("\n\n")
    words = " ".join(first.split()), " ".join(rest.split())
    return words if dot and min(len(half.split()) for half in words) >= WORDS else None


def _data(
    pairs: Sequence[tuple[str, Pair]],
    tokenizer: Tokenizer,
    length: int,
    classes: Sequence[str],
    facts: dict[str, Any],
) -> TensorData:
    tensors: dict[str, Tensor] = {}
    for side, prefix in enumerate(("", "partner_")):
        told = [_framed(tokenizer, pair[side], length) for _, pair in pairs]
        ids, mask = (
            torch.full((len(told), length), tokenizer.end),
            torch.zeros(len(told), length, dtype=torch.int64),
        )
        for number, tokens in enumerate(told):
            ids[number, : len(tokens)], mask[number, : len(tokens)] = torch.tensor(tokens), 1
        tensors |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    numbers = {name: number for number, name in enumerate(classes)}
    return TensorData(tensors, torch.tensor([numbers[name] for name, _ in pairs]), classes, facts)


def _framed(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    start = [] if tokenizer.start is None else [tokenizer.start]
    return [*start, *tokenizer.encode(text)[0][: length - 1 - len(start)], tokenizer.end]
