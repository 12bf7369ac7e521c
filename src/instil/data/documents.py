"""Texts of files, dealt to train, validation and test by document."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.paths import located

SUFFIXES = (".txt", ".md", ".rst", ".py")
STDLIB = "stdlib"
SHARE = 10  # one document of so many is for validation, and one for the test


@dataclass(frozen=True)
class Document:
    """A text, or a ``prompt`` and what answers it; only the answer is learned. One that was cut has no end to be learned.

    ``context``: what helps with the answer, for those who may read it. ``domain``: what it is about; empty where all texts are about the same.
    """

    name: str
    text: str
    prompt: str | None = None
    cut: bool = False
    context: str = ""
    domain: str = ""


def documents(
    path: str, base: Path = Path()
) -> tuple[list[Document], list[Document], list[Document]]:
    """Train, validation and test documents of ``stdlib`` (the modules of this Python's own library), a folder of texts, or a ``.jsonl`` file.

    A line of ``.jsonl`` has ``text``, or ``prompt`` and ``completion``, ``finish_reason`` being ``length`` where that was cut; beside a prompt there
    may be a ``context``, and in every line a ``domain``, else it is the folder inside the one that was named. A document belongs to one part alone,
    by the hash of its name. Raises ValueError for lines of another form and for fewer than three documents.
    """
    found = sorted(
        _found(path, base), key=lambda document: hashlib.sha256(document.name.encode()).hexdigest()
    )
    if len(found) < 3:
        raise ValueError(
            f"'{path}' has {len(found)} documents; train, validation and test need one each at least"
        )
    held = max(1, len(found) // SHARE)
    return found[2 * held :], found[held : 2 * held], found[:held]


def _found(path: str, base: Path) -> Iterator[Document]:
    place = Path(sysconfig.get_paths()["stdlib"]) if path == STDLIB else located(path, base)
    if place.suffix == ".jsonl":
        yield from _lines(place)
        return
    if not place.is_dir():
        raise ValueError(
            f"texts come from a folder, a .jsonl file or '{STDLIB}', not from {place.name}"
        )
    pattern = "*.py" if path == STDLIB else "**/*"
    for file in sorted(place.glob(pattern)):
        if file.suffix in SUFFIXES and not file.name.startswith("_"):
            yield Document(
                file.relative_to(place).as_posix(), _read(file), domain=_folder(file, place)
            )
        elif file.suffix == ".jsonl":
            yield from _lines(file, _folder(file, place))


def _folder(file: Path, place: Path) -> str:
    return "/".join(file.relative_to(place).parts[:-1][:1])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from error


def _lines(file: Path, domain: str = "") -> Iterator[Document]:
    for number, line in enumerate(_read(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
        yield _document(entry, where, domain)


def _document(entry: Any, where: str, domain: str) -> Document:
    """The document of one line.

    Raises:
        ValueError: naming file and line, where the line is of another form.
    """
    _check_form(entry, where)
    domain = str(entry.get("domain", domain))
    if "text" in entry:
        return Document(where, _text(entry, "text", where), domain=domain)
    completion = _text(entry, "completion", where)
    prompt = _text(entry, "prompt", where)
    context = _text(entry, "context", where) if entry.get("context") is not None else ""
    if not completion.strip():
        raise ValueError(f"{where} has an empty completion: there is nothing to learn")
    cut = entry.get("finish_reason") == "length"
    return Document(where, completion, prompt, cut, context, domain)


CONVERSATION = (
    "a conversation. Expected a text. Render it with the chat template of the model first: one "
    "line for each answer, with 'prompt' (all that comes before it) and 'completion'"
)


def _check_form(entry: Any, where: str) -> None:
    expected = "Expected 'text', or 'prompt' and 'completion'"
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: it is a JSON {_kind(entry)}, not an object. {expected}")
    if {"text"} <= entry.keys() or {"prompt", "completion"} <= entry.keys():
        return
    for key in ("messages", "conversations"):
        if key in entry:
            raise ValueError(f"{where}: '{key}' is {CONVERSATION}")
    keys = ", ".join(entry) or "none"
    raise ValueError(f"{where}: it has the keys {keys}. {expected}")


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
