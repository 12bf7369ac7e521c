"""Rows of instructions with an answer, as conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from instil.data.chat_content import shown, string

COLUMNS = {"instruction": "output", "query": "response"}
"""Column of a question -> column of its answer, of Alpaca and of ms-swift."""


def instruction_turns(row: Mapping[str, Any], where: str) -> list[dict[str, str]] | None:
    """Return the messages of a row of Alpaca or ms-swift.

    These are ``system``, the pairs of question and answer in ``history``, and the question with its
    answer. The ``input`` of an ``instruction`` follows it in a line of its own.

    Args:
        row: the columns of a row by name.
        where: file and line, for messages.

    Returns:
        Messages with ``role`` and ``content``; None for a row without a question and its answer.

    Raises:
        ValueError: for a value of another type.

    Example:
        >>> instruction_turns({"instruction": "Add.", "input": "1 + 1", "output": "2"}, "a:1")
        [{'role': 'user', 'content': 'Add.\\n1 + 1'}, {'role': 'assistant', 'content': '2'}]
    """
    present = [one for one in COLUMNS if row.get(one) is not None and COLUMNS[one] in row]
    if not present:
        return None
    question = present[0]
    parts = [question, "input"] if question == "instruction" else [question]
    texts = [string(row[name], name, where) for name in parts if row.get(name)]
    answer = string(row.get(COLUMNS[question]), COLUMNS[question], where)
    pairs = [*_history(row.get("history"), where), ("\n".join(texts), answer)]
    system = row.get("system")
    turns = [("system", string(system, "system", where))] if system else []
    for pair in pairs:
        turns += zip(("user", "assistant"), pair, strict=True)
    return [{"role": role, "content": content} for role, content in turns]


def _history(value: Any, where: str) -> list[tuple[str, str]]:
    if value is None:
        return []
    try:
        pairs = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        pairs = None
    if not isinstance(pairs, Sequence) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(
            f"{where}: 'history' is {shown(value)}. Expected a list of pairs of question and answer"
        )
    return [(pair[0], pair[1]) for pair in pairs]


def _is_pair(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) == 2
    return is_list and all(isinstance(text, str) for text in value)
