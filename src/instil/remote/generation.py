"""Prompts of a file, answered by a teacher behind a server, as a file to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic
from instil.remote.connection import RequestRefusedError
from instil.remote.server import Completion, Server

Tick = Callable[[int, int], None]


def generate_file(
    prompts: Path, out: Path, server: Server, tick: Tick = lambda done, of: None, **options: Any
) -> int:
    """Answer the ``prompt`` of every line of ``prompts`` (.jsonl); returns how many lines are in ``out``.

    A line of ``out`` is that of the prompt with ``completion`` and ``finish_reason``; ``options`` are those of ``Server.completions``. ``out``
    appears when all is answered; until then the answers are in the server's log, from which the same call goes on.

    Raises ValueError for lines of another form, and names the lines whose prompt the server refuses or answers with nothing.
    """
    entries = read_prompts(prompts)
    found: dict[int, Completion | RequestRefusedError] = {}
    for number, answer in server.completions([entry["prompt"] for _, entry in entries], **options):
        found[number] = answer
        tick(len(found), len(entries))
    wrong = {
        entries[number][0]: why
        for number, answer in sorted(found.items())
        if (why := _useless(answer))
    }
    if wrong:
        line, why = next(iter(wrong.items()))
        if len(wrong) == len(entries) > 1:
            raise ValueError(f"none of the {len(wrong)} prompts has an answer to learn from: {why}")
        others = f" (and {len(wrong) - 1} other lines)" * (len(wrong) > 1)
        raise ValueError(
            f"{prompts.name}, line {line}{others} cannot be learned from: {why}. Take it out; the other answers are kept in the log"
        )
    with atomic(out) as temporary:
        lines = (
            json.dumps(entry | _said(found[number]), ensure_ascii=False)
            for number, (_, entry) in enumerate(entries)
        )
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(found)


def _useless(answer: Completion | RequestRefusedError) -> str:
    """Why there is nothing to learn of an answer, or nothing."""
    if isinstance(answer, RequestRefusedError):
        return str(answer)
    if answer.text.strip():
        return ""
    if answer.finish_reason == "length":
        return (
            "the answer is empty although it reached the limit of tokens; a model that reasons "
            "spends them before it answers. Raise --length"
        )
    return "the answer is empty"


def _said(answer: Completion | RequestRefusedError) -> dict[str, str]:
    assert isinstance(answer, Completion)
    return {"completion": answer.text, "finish_reason": answer.finish_reason}


def read_prompts(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The lines of a file with their numbers.

    Raises ValueError where one has no ``prompt`` or is no text that can be written again, FileNotFoundError where there is no file.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name}: byte {error.start} is no UTF-8. Expected JSON lines in UTF-8"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path.name}, line {number} is no JSON: {error}") from error
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("prompt"), str)
            or not entry["prompt"].strip()
        ):
            raise ValueError(f"{path.name}, line {number} needs a 'prompt', a text")
        try:
            json.dumps(entry, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{path.name}, line {number} holds half a character (a lone surrogate). Expected whole"
                " characters; take it out"
            ) from error
        found.append((number, entry))
    if not found:
        raise ValueError(f"{path.name} has no prompts")
    return found
