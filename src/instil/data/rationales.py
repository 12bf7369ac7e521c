"""Token rows of texts with a rationale: in front of the answer, or as a task of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Literal

from typing_extensions import Doc

from instil.data.documents import Document
from instil.data.row_pairs import rows_of_pairs
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer
from instil.items.prefixed_rows import REJECTED

RationaleUse = Literal["ignore", "answer", "task", "counterfactual", "preference"]
RationaleOption = Annotated[
    RationaleUse,
    Doc(
        "use of a row's rationale; answer: the answer begins with it (chain of thought), task: it "
        "is the answer of a second task, for the scheme step_by_step; counterfactual: the answer "
        "begins with it, and wrong rationales are a second task, for rationale_consistency; "
        "preference: the answer begins with it, and the wrong rationale with its answer is the "
        "rejected text of a pair, for dpkd"
    ),
]
PREFIXES: dict[RationaleUse, tuple[str, str]] = {
    "task": ("[label] ", "[rationale] "),
    "counterfactual": ("[Factual] ", "[Counterfactual] "),
    "preference": ("", ""),
}
"""Beginnings of the prompts of both tasks (Hsieh et al. 2023, section 3.2; Wang et al. 2023)."""
KEYS: dict[RationaleUse, str] = {
    "task": "rationale_",
    "counterfactual": "counterfactual_",
    "preference": REJECTED,
}
"""Prefix of the batch keys of the second task, or of the rejected texts."""
EXPECTED = "'prompt', 'rationale' and 'completion'"
EXPECTED_WRONG = "'wrong_rationale' and 'wrong_completion'"
EXPECTED_PAIR = "'prompt', 'completion' and 'wrong_completion'"


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
    that ends with the wrong rationale. With ``preference``, they are the rationale with the answer,
    and the wrong rationale with the wrong answer; rationales may be missing.

    Args:
        parts: train, validation and test documents with prompts and rationales.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens, for both tasks.
        use: ``task``, ``counterfactual`` or ``preference``.
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
    if use == "preference":
        _check_wrong_answers(parts)
    else:
        _check_rationales(parts, every=True)
    if use == "counterfactual":
        _check_wrong_rationales(parts)
    first, second = prefixes or PREFIXES[use]
    pairs: list[list[tuple[Document, Document]]] = []
    for part in parts:
        tasks = [_tasks(document, use, separator) for document in part]
        pairs.append([(_begin(one, first), _begin(other, second)) for one, other in tasks])
    return rows_of_pairs(pairs, KEYS[use], tokenizer, length, limits, prune)


def _tasks(document: Document, use: RationaleUse, separator: str) -> tuple[Document, Document]:
    """Return the documents of both tasks, without the beginnings of their prompts."""
    if use == "task":
        return document, replace(document, text=document.rationale)
    right = _with_rationale(document, separator)
    if use == "preference":
        wrong = replace(document, text=document.wrong_answer, rationale=document.wrong_rationale)
        return right, _with_rationale(wrong, separator)
    prompt = f"{document.prompt}{document.wrong_rationale}{separator}"
    return right, replace(document, prompt=prompt, text=document.wrong_answer)


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


def _check_wrong_answers(parts: Sequence[Sequence[Document]]) -> None:
    """Raise ValueError if a document has no prompt or no wrong answer."""
    documents = list(chain.from_iterable(parts))
    missing = [one for one in documents if not one.wrong_answer.strip() or one.prompt is None]
    if missing:
        raise _error(documents, missing, "prompt and wrong answer", EXPECTED_PAIR, "ignore")


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
