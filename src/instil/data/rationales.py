"""Token rows of texts with a rationale: in front of the answer, or as a task of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Literal

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.data.documents import Document
from instil.data.fitting import REFUSED
from instil.data.splits import Splits
from instil.data.token_packing import pruned, rows_of_parts
from instil.data.token_rows import TokenRows
from instil.data.tokenizers import Tokenizer

RationaleUse = Literal["ignore", "answer", "task"]
RationaleOption = Annotated[
    RationaleUse,
    Doc(
        "use of a row's rationale; answer: the answer begins with it (chain of thought), task: it "
        "is the answer of a second task, for the scheme step_by_step"
    ),
]
PREFIXES = ("[label] ", "[rationale] ")
"""Beginnings of the prompts of both tasks (Hsieh et al. 2023, section 3.2)."""
PREFIX = "rationale_"
"""Prefix of the batch keys of the second task."""


class RationaleRows(TokenRows):
    """Rows of the answers, with those of the rationales under keys that begin with ``rationale_``.

    Args:
        answers: rows whose answer is the label.
        rationales: rows of the same prompts whose answer is the rationale.
    """

    def __init__(self, answers: TokenRows, rationales: TokenRows):
        # This object takes over the attributes of the rows of answers, which are complete.
        vars(self).update(vars(answers))
        self.rationales = rationales

    def inputs(self, rows: Tensor) -> Batch:
        of_rationales = self.rationales.inputs(rows) | {"label": self.rationales.label[rows]}
        prefixed = {f"{PREFIX}{key}": value for key, value in of_rationales.items()}
        return super().inputs(rows) | prefixed

    def _take(self, rows: Tensor) -> None:
        self.tensors = TokenRows.inputs(self, rows)
        self.rationales = self.rationales.subset(rows)


def with_rationales(parts: Sequence[Sequence[Document]], separator: str) -> list[list[Document]]:
    """Return documents whose answers begin with their rationales.

    Args:
        parts: train, validation and test documents.
        separator: text between a rationale and the answer.

    Raises:
        ValueError: if no document has a rationale.
    """
    _check_rationales(parts, every=False)
    return [[_with_rationale(document, separator) for document in part] for part in parts]


def _with_rationale(document: Document, separator: str) -> Document:
    if not document.rationale:
        return document
    return replace(document, text=f"{document.rationale}{separator}{document.text}")


def two_tasks(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    prefixes: tuple[str, str] = PREFIXES,
) -> Splits:
    """Divide documents into rows of two tasks: the answer, and the rationale.

    Args:
        parts: train, validation and test documents with prompts and rationales.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens, for both tasks.
        limits: largest number of rows of each part; None for all.
        prune: whether to reduce the vocabulary to the tokens of the rows.
        prefixes: beginnings of the prompts of the answer and of the rationale.

    Returns:
        Train, validation and test data, whose evaluation is that of the answers.

    Raises:
        ValueError: for documents without a prompt or a rationale, and those that are longer than
            a row.
    """
    _check_rationales(parts, every=True)
    tasks = []
    for prefix, key in zip(prefixes, ("text", "rationale"), strict=True):
        documents = [[_task(document, prefix, key) for document in part] for part in parts]
        tasks.append(rows_of_parts(documents, tokenizer, length, limits, REFUSED)[0])
    rows, tokens = pruned([*tasks[0], *tasks[1]], tokenizer, prune)
    size = len(tokens) or tokenizer.size
    data = [TokenRows(part, length, size, tokenizer, tokens) for part in rows]
    train, validation, test = (RationaleRows(data[i], data[i + 3]) for i in range(3))
    return Splits(train, validation, test, train.classes, train.kind)


def _task(document: Document, prefix: str, key: str) -> Document:
    text = getattr(document, key)
    return replace(document, prompt=f"{prefix}{document.prompt}", text=text, rationale="")


def _check_rationales(parts: Sequence[Sequence[Document]], every: bool) -> None:
    """Raise ValueError if no document has a rationale, or one of them has none and ``every``."""
    documents = list(chain.from_iterable(parts))
    missing = [one for one in documents if not one.rationale.strip() or one.prompt is None]
    if len(missing) == len(documents) or (every and missing):
        raise ValueError(
            f"rationale: {len(missing)} of {len(documents)} texts have no prompt and rationale "
            f"(first: {missing[0].name}). Expected 'prompt', 'rationale' and 'completion' in each. "
            "Set rationale to ignore"
        )
