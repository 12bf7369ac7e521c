"""A file of prompts in, a file with completions of a remote teacher out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic
from instil.remote.connection import RequestRefusedError
from instil.remote.server import Completion, Server

OnProgress = Callable[[int, int], None]
Entry = dict[str, Any]


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""


def generate_file(
    prompts: Path,
    out: Path,
    server: Server,
    on_progress: OnProgress = _no_progress,
    **options: Any,
) -> int:
    """Complete the ``prompt`` of every line of a file.

    The output file appears once all completions are there. Until then they are in the log of the
    server, and the same call continues from it.

    Args:
        prompts: JSON lines with a ``prompt``.
        out: file of the same lines with ``completion`` and ``finish_reason``.
        server: server of the teacher.
        on_progress: called with the number of completions and of prompts.
        options: options of ``Server.completions``.

    Returns:
        The number of lines in ``out``.

    Raises:
        ValueError: for lines in another format, and for prompts that the server refuses or
            completes with an empty text.
    """
    entries = read_prompts(prompts)
    answers: dict[int, Completion | RequestRefusedError] = {}
    for index, answer in server.completions([entry["prompt"] for _, entry in entries], **options):
        answers[index] = answer
        on_progress(len(answers), len(entries))
    _check_answers(prompts.name, entries, answers)
    lines = []
    for index, (_, entry) in enumerate(entries):
        lines.append(json.dumps(entry | _completion_entry(answers[index]), ensure_ascii=False))
    with atomic(out) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(answers)


def _check_answers(
    name: str,
    entries: list[tuple[int, Entry]],
    answers: dict[int, Completion | RequestRefusedError],
) -> None:
    """Raise ValueError if a prompt has no usable completion."""
    problems: dict[int, str] = {}
    for index, answer in sorted(answers.items()):
        if problem := _problem_of(answer):
            problems[entries[index][0]] = problem
    if not problems:
        return
    line, problem = next(iter(problems.items()))
    if len(problems) == len(entries) > 1:
        raise ValueError(f"none of the {len(problems)} prompts has a usable completion: {problem}")
    others = f" (and {len(problems) - 1} other lines)" if len(problems) > 1 else ""
    raise ValueError(
        f"{name}, line {line}{others}: no usable completion: {problem}. Remove it; the "
        "other completions are in the log"
    )


def _problem_of(answer: Completion | RequestRefusedError) -> str:
    """Return why a completion cannot be used for training, or an empty string."""
    if isinstance(answer, RequestRefusedError):
        return str(answer)
    if answer.text.strip():
        return ""
    if answer.finish_reason == "length":
        return (
            "the completion is empty although it reached the token limit; a reasoning model spends "
            "tokens before it answers. Raise --length"
        )
    return "the completion is empty"


def _completion_entry(answer: Completion | RequestRefusedError) -> dict[str, str]:
    assert isinstance(answer, Completion)
    return {"completion": answer.text, "finish_reason": answer.finish_reason}


def read_prompts(path: Path) -> list[tuple[int, Entry]]:
    """Read a file of prompts.

    Args:
        path: JSON lines with a ``prompt``.

    Returns:
        The line number and the content of each line that is not empty.

    Raises:
        ValueError: for a line without ``prompt``, or with text that cannot be written again.
        FileNotFoundError: if there is no file.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name}: byte {error.start} is not UTF-8. Expected JSON lines in UTF-8"
        ) from error
    entries = []
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            entries.append((line_number, _parse_prompt(line, f"{path.name}, line {line_number}")))
    if not entries:
        raise ValueError(f"{path.name}: no prompts")
    return entries


def _parse_prompt(line: str, location: str) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{location}: this is not JSON: {error}") from error
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{location}: there is no 'prompt'. Expected a text that is not empty")
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{location}: there is half a character (a lone surrogate). Expected complete "
            "characters. Remove it"
        ) from error
    parsed: Entry = entry
    return parsed
