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

RationaleUse = Literal["ignore", "answer", "task", "counterfactual"]
RationaleOption = Annotated[
    RationaleUse,
    Doc(
        "use of a row's rationale; answer: the answer begins with it (chain of thought), task: it "
        "is the answer of a second task, for the scheme step_by_step; counterfactual: the answer "
        "begins with it, and wrong rationales are a second task, for rationale_consistency"
    ),
]
PREFIXES: dict[RationaleUse, tuple[str, str]] = {
    "task": ("[label] ", "[rationale] "),
    "counterfactual": ("[Factual] ", "[Counterfactual] "),
}
"""Beginnings of the prompts of both tasks (Hsieh et al. 2023, section 3.2; Wang et al. 2023)."""
KEYS: dict[RationaleUse, str] = {"task": "rationale_", "counterfactual": "counterfactual_"}
"""Prefix of the batch keys of the second task."""


EXPECTED = "'prompt', 'rationale' and 'completion'"
EXPECTED_WRONG = "'wrong_rationale' and 'wrong_completion'"


class RationaleRows(TokenRows):
    """Rows of answers, with those of a second task under prefixed keys.

    Args:
        answers: rows of the first task.
        others: rows of the second task, one for each row of the first.
        prefix: beginning of the keys of the second task, such as ``rationale_``.
    """

    def __init__(self, answers: TokenRows, others: TokenRows, prefix: str):
        # This object takes over the attributes of the rows of answers, which are complete.
        vars(self).update(vars(answers))
        self.others = others
        self.prefix = prefix

    def inputs(self, rows: Tensor) -> Batch:
        second = self.others.inputs(rows) | {"label": self.others.label[rows]}
        prefixed = {f"{self.prefix}{key}": value for key, value in second.items()}
        return super().inputs(rows) | prefixed

    def _take(self, rows: Tensor) -> None:
        self.tensors = TokenRows.inputs(self, rows)
        self.others = self.others.subset(rows)


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
    use: RationaleUse,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    prefixes: tuple[str, str] | None = None,
    separator: str = "\n",
) -> Splits:
    """Divide documents into rows of two tasks.

    With ``task``, the answers of the tasks are the answer and the rationale. With
    ``counterfactual``, they are the rationale with the answer, and the wrong answer after a prompt
    that ends with the wrong rationale.

    Args:
        parts: train, validation and test documents with prompts and rationales.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens, for both tasks.
        use: ``task`` or ``counterfactual``.
        limits: largest number of rows of each part; None for all.
        prune: whether to reduce the vocabulary to the tokens of the rows.
        prefixes: beginnings of the prompts of both tasks. Default: those of the papers.
        separator: text between a rationale and its answer.

    Returns:
        Train, validation and test data, whose evaluation is that of the first task.

    Raises:
        ValueError: for documents without a prompt or a rationale, and those that are longer than
            a row.
    """
    _check_rationales(parts, every=True)
    if use == "counterfactual":
        _check_wrong_rationales(parts)
    pairs = [[_tasks(document, use, separator) for document in part] for part in parts]
    tasks = []
    for index, prefix in enumerate(prefixes or PREFIXES[use]):
        documents = [[_begin(pair[index], prefix) for pair in part] for part in pairs]
        tasks.append(rows_of_parts(documents, tokenizer, length, limits, REFUSED)[0])
    rows, tokens = pruned([*tasks[0], *tasks[1]], tokenizer, prune)
    size = len(tokens) or tokenizer.size
    data = [TokenRows(part, length, size, tokenizer, tokens) for part in rows]
    train, validation, test = (RationaleRows(data[i], data[i + 3], KEYS[use]) for i in range(3))
    return Splits(train, validation, test, train.classes, train.kind)


def _tasks(document: Document, use: RationaleUse, separator: str) -> tuple[Document, Document]:
    """Return the documents of both tasks, without the beginnings of their prompts."""
    if use == "task":
        return document, replace(document, text=document.rationale)
    prompt = f"{document.prompt}{document.wrong_rationale}{separator}"
    wrong = replace(document, prompt=prompt, text=document.wrong_answer)
    return _with_rationale(document, separator), wrong


def _begin(document: Document, prefix: str) -> Document:
    """Return the document with the beginning of its prompt."""
    return replace(document, prompt=f"{prefix}{document.prompt}", rationale="")


def _check_rationales(parts: Sequence[Sequence[Document]], every: bool) -> None:
    """Raise ValueError if no document has a rationale, or one of them has none and ``every``."""
    documents = list(chain.from_iterable(parts))
    missing = [one for one in documents if not one.rationale.strip() or one.prompt is None]
    if len(missing) == len(documents) or (every and missing):
        raise _error(documents, missing, "prompt and rationale", EXPECTED, "ignore")


def _check_wrong_rationales(parts: Sequence[Sequence[Document]]) -> None:
    """Raise ValueError if a document has no wrong rationale, or no answer of it."""
    documents = list(chain.from_iterable(parts))
    missing = [
        one for one in documents if not one.wrong_rationale.strip() or not one.wrong_answer.strip()
    ]
    if missing:
        raise _error(documents, missing, "wrong rationale", EXPECTED_WRONG, "answer")


def _error(
    documents: Sequence[Document],
    missing: Sequence[Document],
    part: str,
    expected: str,
    use: RationaleUse,
) -> ValueError:
    """Return the error about texts that lack a part, and the use that they allow."""
    return ValueError(
        f"rationale: {len(missing)} of {len(documents)} texts have no {part} (first: "
        f"{missing[0].name}). Expected {expected} in each. Set rationale to {use}"
    )
