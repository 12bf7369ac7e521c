"""Rows of preference pairs: one answer is preferred to another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.data.chat_content import row_columns, shown, string

EXPECTED = (
    "'chosen' and 'rejected', 'completion' and 'rejected', 'messages' and "
    "'rejected_messages', or 'messages' and 'rejected_response'. Set data.preferences=false to "
    "learn the chosen answers only"
)
PARTNERS = {"rejected_messages": "messages", "rejected": "chosen"}
"""Column of the rejected text -> column of the preferred text in the same form."""


def rejected_row(row: Any, where: str) -> Mapping[str, Any]:
    """Return a row with the rejected answer in place of the preferred one.

    Args:
        row: a JSON line, or the columns of a row by name.
        where: file and line, for messages.

    Raises:
        ValueError: for a row without a rejected answer.

    Example:
        >>> rejected_row({"prompt": "1 + 1", "chosen": "2", "rejected": "3"}, "a:1")
        {'prompt': '1 + 1', 'chosen': '3'}
    """
    columns = row_columns(row, where, EXPECTED)
    if columns.get("rejected_response") is not None:
        return _with_last_answer(columns, where)
    for rejected, preferred in PARTNERS.items():
        if columns.get(rejected) is None:
            continue
        name = preferred
        if columns.get(name) is None and rejected == "rejected":
            name = "completion"
        if columns.get(name) is None:
            raise ValueError(f"{where}: '{rejected}' without '{preferred}'. Expected {EXPECTED}")
        rest = {key: value for key, value in columns.items() if key != rejected}
        return rest | {name: columns[rejected]}
    names = ", ".join(columns) or "none"
    raise ValueError(f"{where}: no rejected answer, only the columns {names}. Expected {EXPECTED}")


def _with_last_answer(columns: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return a conversation whose last answer is the rejected one (ms-swift)."""
    turns: Any = columns.get("messages")
    answer = string(columns["rejected_response"], "rejected_response", where)
    is_conversation = isinstance(turns, (list, tuple)) and turns and isinstance(turns[-1], Mapping)
    if not is_conversation or turns[-1].get("role") != "assistant":
        raise ValueError(
            f"{where}: 'messages' is {shown(turns)}. Expected a conversation that ends with the "
            "preferred answer, next to 'rejected_response'"
        )
    rest = {key: value for key, value in columns.items() if key != "rejected_response"}
    return rest | {"messages": [*turns[:-1], {**turns[-1], "content": answer}]}
