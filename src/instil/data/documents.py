"""Text documents of files, divided into train, validation and test."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.groups import whole_groups
from instil.data.paths import located

SUFFIXES = (".txt", ".md", ".rst", ".py")
STDLIB = "stdlib"
SHARE = 10
"""Ratio of all documents to validation documents, and of all documents to test documents."""


@dataclass(frozen=True)
class Document:
    """Plain text, or an answer to a prompt. Only the answer contributes to the loss.

    Attributes:
        name: file, with the line in a ``.jsonl`` file.
        text: the text, or the answer.
        prompt: the prompt; None for a plain text.
        cut: whether the answer was cut; then its end is not a training target.
        context: additional input for networks that may read it, such as hints for the answer.
        domain: subject of the text; empty if all texts have the same one.
        rationale: reasoning that leads to the answer; empty for none.
        wrong_rationale: reasoning that leads to another answer; empty for none.
        wrong_answer: the answer that the wrong rationale leads to.
    """

    name: str
    text: str
    prompt: str | None = None
    cut: bool = False
    context: str = ""
    domain: str = ""
    rationale: str = ""
    wrong_rationale: str = ""
    wrong_answer: str = ""


def documents(path: str, base: Path = Path()) -> list[list[Document]]:
    """Return the train, validation and test documents of a path.

    A line of a ``.jsonl`` file has ``text``, or ``prompt`` and ``completion``. With a prompt it may
    have a ``context``, a ``rationale``, a ``wrong_rationale`` with its ``wrong_completion``, and
    ``finish_reason: length`` for a completion that was cut. Every line may have a ``domain``; by
    default it is the first folder below ``path``. The hash of a document's name selects its part.
    Equal texts, and answers to one prompt, are in one part as far as possible (see
    ``whole_groups``). Files whose names begin with ``_`` are left out.

    Args:
        path: ``stdlib`` (the modules of this Python's standard library), a folder of texts, or a
            ``.jsonl`` file.
        base: folder that relative paths start from.

    Returns:
        Train, validation and test documents.

    Raises:
        ValueError: for lines of another form and for fewer than three documents.
    """
    ordered = sorted(_read_all(path, base), key=_name_hash)
    if len(ordered) < 3:
        raise ValueError(
            f"'{path}' has {len(ordered)} documents. Expected at least 3: one each for train, "
            "validation and test"
        )
    count = max(1, len(ordered) // SHARE)
    group = [_origin(document) for document in ordered]
    rest: Sequence[int] = range(len(ordered))
    parts: list[list[Document]] = []
    for _ in ("test", "validation"):
        rows = set(whole_groups(rest, group, count))
        parts.append([ordered[row] for row in rest if row in rows])
        rest = [row for row in rest if row not in rows]
    return [[ordered[row] for row in rest], parts[1], parts[0]]


def _origin(document: Document) -> Hashable:
    """Prompt with its context, or a text without a prompt."""
    if document.prompt is None or not document.prompt.strip():
        return document.text
    return document.prompt, document.context


def _name_hash(document: Document) -> str:
    return hashlib.sha256(document.name.encode()).hexdigest()


def _read_all(path: str, base: Path) -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"]) if path == STDLIB else located(path, base)
    if root.suffix == ".jsonl":
        yield from _lines(root)
        return
    if not root.is_dir():
        raise ValueError(
            f"path: cannot read texts from {root.name}. Expected a folder, a .jsonl file or "
            f"'{STDLIB}'"
        )
    pattern = "*.py" if path == STDLIB else "**/*"
    for file in sorted(root.glob(pattern)):
        if file.suffix in SUFFIXES and not file.name.startswith("_"):
            name = file.relative_to(root).as_posix()
            yield Document(name, _read(file), domain=_first_folder(file, root))
        elif file.suffix == ".jsonl":
            yield from _lines(file, _first_folder(file, root))


def _first_folder(file: Path, root: Path) -> str:
    """First folder between a root and a file; empty if there is none."""
    return "/".join(file.relative_to(root).parts[:-1][:1])


def _read(file: Path) -> str:
    # A byte order mark in front of the text is not part of it.
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: invalid UTF-8: {error}") from error


def _lines(file: Path, domain: str = "") -> Iterator[Document]:
    # Not splitlines(): texts may contain other line separators, such as U+2028.
    for line_number, line in enumerate(_read(file).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {line_number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: invalid JSON: {error}") from error
        yield _document(entry, where, domain)


def _document(entry: Any, where: str, domain: str) -> Document:
    """Return the document of one line.

    Raises:
        ValueError: for a line of another form; the message has the file and line.
    """
    _check_form(entry, where)
    domain = str(entry.get("domain", domain))
    if "text" in entry:
        return Document(where, _text(entry, "text", where), domain=domain)
    completion = _text(entry, "completion", where)
    prompt = _text(entry, "prompt", where)
    context, rationale, wrong_rationale, wrong_answer = (
        _text(entry, key, where) if entry.get(key) is not None else ""
        for key in ("context", "rationale", "wrong_rationale", "wrong_completion")
    )
    if not completion.strip():
        raise ValueError(f"{where}: empty completion. Expected a text to learn")
    cut = entry.get("finish_reason") == "length"
    return Document(
        where, completion, prompt, cut, context, domain, rationale, wrong_rationale, wrong_answer
    )


CONVERSATION = (
    "a conversation. Expected a string. Set data.name to chat, which reads conversations and has "
    "files in place of path"
)


def _check_form(entry: Any, where: str) -> None:
    expected = "Expected 'text', or 'prompt' and 'completion'"
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: JSON {_kind(entry)}, not an object. {expected}")
    if {"text"} <= entry.keys() or {"prompt", "completion"} <= entry.keys():
        return
    for key in ("messages", "conversations"):
        if key in entry:
            raise ValueError(f"{where}: '{key}' is {CONVERSATION}")
    keys = ", ".join(entry) or "none"
    raise ValueError(f"{where}: unknown form with the keys {keys}. {expected}")


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry[key]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        raise ValueError(f"{where}: '{key}' is {CONVERSATION}")
    raise ValueError(f"{where}: '{key}' is {_kind(value)}. Expected a text (a JSON string)")


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return names[type(value)]
